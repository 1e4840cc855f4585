# frozen_string_literal: true

require 'socket'

module Forklight
  # The Runtime API over one connection, one request at a time.
  class Api
    PREFIX = '/2018-06-01/runtime/'

    # An answer: headers by name, in any case of letters, and the body.
    class Answer
      attr_reader :status, :body

      def initialize(status, headers, body)
        @status = status
        @headers = headers
        @body = body
      end

      def [](name)
        @headers[name.downcase]
      end
    end

    def initialize(address)
      host, port = address.split(':')
      @address = address
      @socket = TCPSocket.new(host, port.to_i)
      @socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
    end

    def next_event
      @socket.write("GET #{PREFIX}invocation/next HTTP/1.1\r\nHost: #{@address}\r\n\r\n")
      answer = read
      raise "no event, but status #{answer.status}" unless answer.status == 200

      answer
    end

    # What is refused has been told to the caller of the function already, so it is only noted.
    def post(path, body, type: 'application/json', error_type: nil)
      body = body.to_s.b
      head = "POST #{PREFIX}#{path} HTTP/1.1\r\nHost: #{@address}\r\nContent-Type: #{type.tr("\r\n", ' ')}\r\n" \
             "Content-Length: #{body.bytesize}\r\n"
      head += "Lambda-Runtime-Function-Error-Type: #{error_type.gsub(/[^\x20-\x7e]/, '?')}\r\n" if error_type
      @socket.write("#{head}\r\n".b + body)
      answer = read
      warn("The answer was refused with status #{answer.status}: #{answer.body}") unless answer.status == 202
    end

    private

    # The worker is gone when the connection ends, and we with it.
    def read
      status = line.split[1].to_i
      headers = {}
      until (header = line).empty?
        name, value = header.split(':', 2)
        headers[name.downcase] = value.strip
      end
      size = headers.fetch('content-length', '0').to_i
      body = @socket.read(size)
      exit!(1) if body.nil? || body.bytesize < size
      Answer.new(status, headers, body.force_encoding(Encoding::UTF_8))
    end

    def line
      found = @socket.gets("\r\n")
      exit!(1) if found.nil?
      found.force_encoding(Encoding::UTF_8).chomp("\r\n")
    end
  end
end
