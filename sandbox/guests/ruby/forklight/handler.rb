# frozen_string_literal: true

module Forklight
  # `file.method`, or `file.Module::Class.method` for a method of a class or module.
  class Handler
    def self.load(name)
      file, *scope, method = name.split('.')
      unless method && scope.size < 2
        raise ArgumentError, "Invalid handler #{name.split('.')}, must be of form FILENAME.METHOD or FILENAME.CLASS.METHOD where " \
                             'FILENAME corresponds with an existing Ruby source file FILENAME.rb, CLASS is an optional module/class ' \
                             'namespace and METHOD is a callable method. If using CLASS, METHOD must be a class-level method.'
      end
      require file
      new(scope.first, method)
    end

    def initialize(scope, method)
      @scope = scope
      @method = method
    end

    # Looked up at each call, as a name that nothing has is an error of the invocation.
    def call(event, context)
      owner = @scope ? Kernel.const_get(@scope) : TOPLEVEL_BINDING.receiver
      owner.__send__(@method, event: event, context: context)
    end
  end
end
