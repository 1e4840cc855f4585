# frozen_string_literal: true

require 'json'
require 'logger'

module Forklight
  # The log: one event a line. Line ends within an event travel as \r, and the host turns them back.
  module Log
    JSON_FORMAT = ENV['AWS_LAMBDA_LOG_FORMAT'].to_s.casecmp?('json')
    LEVELS = { 'TRACE' => 'debug', 'DEBUG' => 'debug', 'INFO' => 'info', 'WARN' => 'warn', 'ERROR' => 'error', 'FATAL' => 'fatal' }.freeze
    LEVEL = LEVELS.fetch(ENV['AWS_LAMBDA_LOG_LEVEL'].to_s.upcase, 'debug')

    # An error that ends an invocation or the initialisation.
    def self.failure(title, document)
      text = JSON_FORMAT ? JSON.generate(record('ERROR', title).merge(document)) : "#{title}\n#{JSON.pretty_generate(document)}"
      $stdout.write("#{text.tr("\n", "\r")}\n")
    end

    def self.record(level, message)
      { timestamp: Time.now.utc.strftime('%Y-%m-%dT%H:%M:%S.%LZ'), level: level, message: message, requestId: $_global_aws_request_id }
    end

    # What a Logger writes that the function has made for the standard streams.
    class Formatter < ::Logger::Formatter
      def call(severity, time, progname, message)
        "#{(JSON_FORMAT ? json(severity, progname, message) : text(severity, time, progname, message)).tr("\n", "\r")}\n"
      end

      private

      def text(severity, time, progname, message)
        format('%<initial>s, [%<time>s #%<process>d] %<severity>5s %<id>s -- %<progname>s: %<message>s',
               initial: severity[0], time: format_datetime(time), process: Process.pid, severity: severity,
               id: $_global_aws_request_id, progname: progname, message: utf8(msg2str(message)))
      end

      def json(severity, progname, message)
        record = Log.record(severity, utf8(message.is_a?(Exception) ? message.message : msg2str(message)))
        record[:logger] = progname.to_s if progname
        if message.is_a?(Exception)
          record.update(errorType: message.class.to_s, errorMessage: utf8(message.message), stackTrace: message.backtrace || [])
        end
        JSON.generate(record)
      end

      def utf8(value)
        value.to_s.encode(Encoding::UTF_8, invalid: :replace, undef: :replace)
      end
    end

    # Prepended to Logger.
    module Patch
      def initialize(device, *arguments, level: LEVEL, formatter: nil, **options)
        standard = device.equal?($stdout) || device.equal?($stderr)
        super(device, *arguments, level: level, formatter: formatter || (Formatter.new if standard), **options)
      end
    end
    ::Logger.prepend(Patch)
  end
end
