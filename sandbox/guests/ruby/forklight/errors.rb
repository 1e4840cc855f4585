# frozen_string_literal: true

module Forklight
  # Errors as Lambda tells them.
  module Errors
    OURS = "#{File.dirname(__dir__)}/"

    # `stage`: "Init" or "Function". Frames of this runtime and what lies below them are left out.
    def self.document(error, stage)
      trace = (error.backtrace || []).first(100).take_while { |line| !line.start_with?(OURS) }
      message = error.message.to_s.dup.force_encoding(Encoding::UTF_8).scrub
      { errorMessage: message, errorType: "#{stage}<#{error.class}>", stackTrace: trace.map(&:scrub) }
    end
  end
end
