// The answer of a handler made by awslambda.streamifyResponse: a Writable whose bytes leave as they are written.
'use strict';

const { Writable } = require('stream');
const { InvalidStreamingOperation, toAnswer } = require('./errors.cjs');

const MODE = 'Lambda-Runtime-Function-Response-Mode: streaming\r\n';
const ERROR_TYPE = 'Lambda-Runtime-Function-Error-Type';
const ERROR_BODY = 'Lambda-Runtime-Function-Error-Body';
const HTTP_TYPE = 'application/vnd.awslambda.http-integration-response';

class ResponseStream extends Writable {
  constructor(api, requestId) {
    super({ autoDestroy: false });
    this.api = api;
    this.path = `invocation/${requestId}/response`;
    this.contentType = 'application/octet-stream';
    this.answer = null; // of the Runtime API, once the request has begun
  }

  setContentType(type) {
    if (this.answer !== null) {
      throw new InvalidStreamingOperation('Cannot set content-type, too late.');
    }
    this.contentType = type;
  }

  // Objects are written as JSON.
  write(data, ...rest) {
    const known = typeof data === 'string' || data instanceof Uint8Array;
    return super.write(known ? data : JSON.stringify(data), ...rest);
  }

  begin() {
    if (this.answer === null) {
      const type = this.contentType.replace(/[\r\n]/g, ' ');
      this.answer = this.api.begin(this.path, `${MODE}Trailer: ${ERROR_TYPE}, ${ERROR_BODY}\r\nContent-Type: ${type}\r\n`);
      this._onBeforeFirstWrite?.((data) => this.api.write(Buffer.from(data), () => {}));
    }
  }

  _write(data, encoding, done) {
    this.begin();
    this.api.write(data, done);
  }

  _final(done) {
    this.begin();
    this.api.end();
    this.answer.then(() => done(), done);
  }

  // End it with an error. Resolves when the Runtime API has it.
  async abort(error) {
    const body = toAnswer(error);
    const text = Buffer.from(JSON.stringify(body)).toString('base64');
    this.api.end(`${ERROR_TYPE}: ${String(body.errorType).replace(/[^\x20-\x7e]/g, '?')}\r\n${ERROR_BODY}: ${text}\r\n`);
    await this.answer;
  }
}

// awslambda.HttpResponseStream.from: status, headers and cookies go before the body.
function fromStream(stream, metadata) {
  stream.setContentType(HTTP_TYPE);
  stream._onBeforeFirstWrite = (write) => write(Buffer.concat([Buffer.from(JSON.stringify(metadata)), Buffer.alloc(8)]));
  return stream;
}

module.exports = { ResponseStream, fromStream };
