// One invocation after the other, until the worker ends.
'use strict';

const errors = require('./errors.cjs');
const log = require('./log.cjs');
const { ResponseStream } = require('./stream.cjs');

class Runtime {
  constructor(api) {
    this.api = api;
    this.requestId = null; // of the event that is not answered yet
    this.stream = null;
    this.ready = false;
    this.whenEmpty = null; // what is to be done when nothing is left to run
    process.on('beforeExit', () => {
      const [then, nothing] = [this.whenEmpty, null];
      this.whenEmpty = nothing;
      then?.();
    });
  }

  async serve(handler, streams) {
    for (;;) {
      const { headers, body } = await this.next();
      this.begin(headers);
      await new Promise((done) => {
        if (streams) {
          this.runStreaming(handler, headers, body, done);
        } else {
          this.run(handler, headers, body, done);
        }
      });
      await new Promise(setImmediate);
    }
  }

  async next() {
    this.ready = true;
    return this.api.call('GET', 'invocation/next');
  }

  begin(headers) {
    this.requestId = headers['lambda-runtime-aws-request-id'];
    log.setRequestId(this.requestId);
    const trace = headers['lambda-runtime-trace-id'];
    if (trace) {
      process.env._X_AMZN_TRACE_ID = trace;
    } else {
      delete process.env._X_AMZN_TRACE_ID;
    }
  }

  // An error that ends the process: of the event that runs, or of the initialisation.
  async report(error) {
    const body = JSON.stringify(errors.toAnswer(error));
    if (this.stream?.answer) {
      await this.stream.abort(error);
    } else if (this.requestId !== null) {
      await this.api.call('POST', `invocation/${this.requestId}/error`, body, typeOf(error));
    } else if (!this.ready) {
      await this.api.call('POST', 'init/error', body, typeOf(error));
    }
  }

  async fail(error) {
    log.failure('Invoke Error', error);
    const { requestId } = this;
    this.requestId = null;
    await this.api.call('POST', `invocation/${requestId}/error`, JSON.stringify(errors.toAnswer(error)), typeOf(error));
  }

  async succeed(result) {
    let body;
    try {
      body = JSON.stringify(result === undefined ? null : result) ?? 'null';
    } catch {
      await this.fail(new Error('Unable to stringify response body'));
      return;
    }
    const { requestId } = this;
    this.requestId = null;
    const answer = await this.api.call('POST', `invocation/${requestId}/response`, body, 'Content-Type: application/json\r\n');
    if (answer.status !== 202) {
      console.error(`The answer was refused with status ${answer.status}: ${answer.body}`);
    }
  }

  run(handler, headers, body, done) {
    let over = false;
    // Only the first of all ways to end counts.
    const once = (action) => (...values) => {
      if (!over) {
        over = true;
        this.whenEmpty = null;
        action(...values);
      }
    };
    const finish = (error, result) =>
      (error === undefined || error === null ? this.succeed(result) : this.fail(error)).then(done);
    let waits = true;
    const callback = once((error, result) => {
      if ((error !== undefined && error !== null) || !waits) {
        finish(error, result);
      } else {
        this.whenEmpty = () => finish(null, result);
      }
    });
    const context = contextOf(headers);
    Object.defineProperty(context, 'callbackWaitsForEmptyEventLoop', {
      enumerable: true,
      get: () => waits,
      set: (value) => {
        waits = value;
      },
    });
    context.done = once(finish);
    context.succeed = (result) => context.done(null, result);
    context.fail = (error) => context.done(error ?? 'handled');
    const isAsync = handler.constructor?.name === 'AsyncFunction';
    this.whenEmpty = once(() => finish(isAsync ? new errors.NodeJsExit() : null, null));
    try {
      const result = handler(JSON.parse(body.toString('utf8')), context, callback);
      if (typeof result?.then === 'function') {
        result.then(context.succeed, context.fail);
      }
    } catch (error) {
      callback(error);
    }
  }

  runStreaming(handler, headers, body, done) {
    const stream = new ResponseStream(this.api, this.requestId);
    this.stream = stream;
    this.streamOf(handler, headers, body, stream)
      .catch(async (error) => {
        this.whenEmpty = null;
        if (stream.answer === null) {
          await this.fail(error);
        } else if (!stream.writableFinished) {
          log.failure('Invoke Error', error);
          await stream.abort(error);
        } else {
          log.failure('Invoke Error', error);
        }
      })
      .then(() => {
        this.requestId = null;
        this.stream = null;
        this.whenEmpty = null;
        done();
      });
  }

  async streamOf(handler, headers, body, stream) {
    const finished = new Promise((resolve, reject) => {
      stream.once('finish', resolve);
      stream.once('error', reject);
      this.whenEmpty = () => reject(new Error('Response stream is not finished.'));
    });
    finished.catch(() => {}); // it may fail while the handler still runs
    const result = handler(JSON.parse(body.toString('utf8')), stream, contextOf(headers));
    if (typeof result?.then !== 'function') {
      throw new Error('Streaming does not support non-async handlers.');
    }
    const value = await Promise.race([result, finished.then(() => result)]);
    if (value !== undefined) {
      console.warn('Streaming handlers ignore return values.');
    }
    await finished;
  }
}

function typeOf(error) {
  const name = String(errors.toAnswer(error).errorType).replace(/[^\x20-\x7e]/g, '?');
  return `Content-Type: application/json\r\nLambda-Runtime-Function-Error-Type: ${name}\r\n`;
}

function contextOf(headers) {
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  const parsed = (name) => (headers[name] ? JSON.parse(headers[name]) : undefined);
  return {
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: parsed('lambda-runtime-client-context'),
    identity: parsed('lambda-runtime-cognito-identity'),
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    tenantId: headers['lambda-runtime-aws-tenant-id'],
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
}

module.exports = { Runtime };
