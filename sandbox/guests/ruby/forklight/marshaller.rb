# frozen_string_literal: true

require 'json'
require 'stringio'

module AwsLambda
  # Between the bodies of the Runtime API and Ruby; functions may redefine either method, as on Lambda.
  class Marshaller
    class << self
      def marshall_request(raw_request)
        raw_request['Content-Type'] == 'application/json' ? JSON.parse(raw_request.body) : raw_request.body
      end

      # What can be read is written as it is; else JSON. Returns the body, perhaps with its content type.
      def marshall_response(response)
        case response
        when StringIO, IO then [response, 'application/unknown']
        else response.to_json
        end
      end
    end
  end
end
