// Errors as Lambda tells them: to the caller and in the log.
'use strict';

const { isNativeError } = require('util').types;

class RuntimeError extends Error {
  constructor(message) {
    super(message);
    this.name = `Runtime.${new.target.name}`;
  }
}

class HandlerNotFound extends RuntimeError {}
class ImportModuleError extends RuntimeError {}
class InvalidStreamingOperation extends RuntimeError {}
class MalformedHandlerName extends RuntimeError {}
class NodeJsExit extends RuntimeError {
  constructor() {
    super('The Lambda runtime client detected an unexpected Node.js exit.');
  }
}
class UnhandledPromiseRejection extends RuntimeError {
  constructor(reason) {
    super(String(reason));
    this.reason = reason;
  }
}
class UserCodeSyntaxError extends RuntimeError {}

function isError(value) {
  const texts = [value?.name, value?.message, value?.stack];
  return isNativeError(value) || texts.every((text) => typeof text === 'string' && text);
}

// For the caller: anything that can be thrown.
function toAnswer(error) {
  try {
    if (isError(error)) {
      return { errorType: error.name, errorMessage: error.message, trace: String(error.stack).split('\n') };
    }
    return { errorType: typeof error, errorMessage: String(error), trace: [] };
  } catch {
    return {
      errorType: 'handled',
      errorMessage:
        'callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack',
    };
  }
}

// For the log: what the user has put on it, too.
function toLog(error) {
  const wrapped = error instanceof Error ? error : new Error(error);
  try {
    return JSON.stringify(wrapped, (_, value) => (value instanceof Error ? plain(value) : value));
  } catch {
    return JSON.stringify(toAnswer(wrapped));
  }
}

function plain(error) {
  const { name, message, code, stack } = error;
  const lines = typeof stack === 'string' ? { stack: stack.split('\n') } : {};
  return { errorType: name, errorMessage: message, code, ...error, name: undefined, ...lines };
}

module.exports = {
  HandlerNotFound, ImportModuleError, InvalidStreamingOperation, MalformedHandlerName, NodeJsExit, UnhandledPromiseRejection,
  UserCodeSyntaxError, toAnswer, toLog,
};
