// console.*: one event a call, in the text or the JSON format, from the function's level on. Line ends travel as \r, and the host turns
// them back.
'use strict';

const fs = require('fs');
const util = require('util');
const errors = require('./errors.cjs');

const LEVELS = ['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'];
const METHODS = { trace: 'TRACE', debug: 'DEBUG', log: 'INFO', info: 'INFO', warn: 'WARN', error: 'ERROR', fatal: 'FATAL' };

const asJson = process.env.AWS_LAMBDA_LOG_FORMAT?.toUpperCase() === 'JSON';
let requestId;

function setRequestId(id) {
  requestId = id;
}

// The pipe may be full: then we wait, as any process that writes.
function writeLine(text) {
  let left = Buffer.from(`${text.replace(/\n/g, '\r')}\n`);
  while (left.length > 0) {
    try {
      left = left.subarray(fs.writeSync(1, left));
    } catch (error) {
      if (error.code !== 'EAGAIN') {
        return; // the function has closed it
      }
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

function textLine(level, values) {
  return `${new Date().toISOString()}\t${requestId}\t${level}\t${util.format(...values)}`;
}

function jsonLine(level, values) {
  const record = { timestamp: new Date().toISOString(), level, requestId };
  if (values.length === 1) {
    try {
      return JSON.stringify({ ...record, message: values[0] }, (_, value) => (value instanceof Error ? jsonError(value) : value));
    } catch {
      return JSON.stringify({ ...record, message: util.format(values[0]) });
    }
  }
  const error = values.find((value) => value instanceof Error);
  return JSON.stringify({ ...record, message: util.format(...values), ...(error ? jsonError(error) : {}) });
}

function jsonError(error) {
  return {
    errorType: error?.constructor?.name ?? 'UnknownError',
    errorMessage: error.message,
    stackTrace: typeof error.stack === 'string' ? error.stack.split('\n') : [],
    ...error,
  };
}

function write(level, values) {
  writeLine(asJson ? jsonLine(level, values) : textLine(level, values));
}

function takeConsole() {
  const least = LEVELS.indexOf(process.env.AWS_LAMBDA_LOG_LEVEL?.toUpperCase() ?? 'TRACE');
  for (const [method, level] of Object.entries(METHODS)) {
    const wanted = level === 'FATAL' || LEVELS.indexOf(level) >= least;
    console[method] = wanted ? (...values) => write(level, values) : () => {};
  }
}

// An error that ends an invocation or the initialisation.
function failure(title, error) {
  if (asJson) {
    write('ERROR', [error instanceof Error ? error : new Error(error)]);
  } else {
    write('ERROR', [title, `\t${errors.toLog(error)}`]);
  }
}

module.exports = { failure, setRequestId, takeConsole };
