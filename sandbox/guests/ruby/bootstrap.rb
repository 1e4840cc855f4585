# frozen_string_literal: true

# What runs Ruby functions: ruby /var/runtime/bootstrap.rb. Lambda's rules for handlers, over the Runtime API of the worker beside it.
# The rules are those of AWS's client (the gem aws_lambda_ric); this one needs nothing but Ruby's own library.

require 'json'
require_relative 'forklight/api'
require_relative 'forklight/context'
require_relative 'forklight/errors'
require_relative 'forklight/handler'
require_relative 'forklight/log'
require_relative 'forklight/marshaller'

$stdout.sync = true
$_global_aws_request_id = nil

module Forklight
  # One invocation after the other, until the worker ends.
  class Runtime
    def initialize(api)
      @api = api
    end

    def run(root, name)
      $LOAD_PATH.unshift(root) unless $LOAD_PATH.include?(root)
      handler = nil
      begin
        handler = Handler.load(name)
      rescue Exception => e # what a file throws when it is loaded, SystemExit too
        fail_init(e, name)
      end
      loop { serve(handler) }
    end

    private

    def fail_init(error, name)
      document = Errors.document(error, 'Init')
      Log.failure("Init error when loading handler #{name}", document)
      @api.post('init/error', JSON.generate(document), error_type: document[:errorType])
      exit!(252) # as AWS's client: -4
    end

    def serve(handler)
      event = @api.next_event
      request_id = $_global_aws_request_id = event['Lambda-Runtime-Aws-Request-Id']
      trace = event['Lambda-Runtime-Trace-Id']
      ENV['_X_AMZN_TRACE_ID'] = trace
      begin
        request = AwsLambda::Marshaller.marshall_request(event)
        body, type = AwsLambda::Marshaller.marshall_response(handler.call(request, Context.new(event)))
        body = body.read if body.respond_to?(:read)
      rescue Exception => e
        fail_invocation(request_id, e)
      else
        @api.post("invocation/#{request_id}/response", body, type: type || 'application/json')
      end
    end

    # What is no StandardError, and a name that nothing has, ends the process behind the answer.
    def fail_invocation(request_id, error)
      critical = error.is_a?(NameError) || !error.is_a?(StandardError)
      document = Errors.document(error, 'Function')
      Log.failure(critical ? 'Critical exception from handler' : 'Error raised from handler method', document)
      @api.post("invocation/#{request_id}/error", JSON.generate(document), error_type: document[:errorType])
      exit!(255) if critical
    end
  end
end

Forklight::Runtime.new(Forklight::Api.new(ENV.fetch('AWS_LAMBDA_RUNTIME_API'))).run(ENV.fetch('LAMBDA_TASK_ROOT'), ENV.fetch('_HANDLER'))
