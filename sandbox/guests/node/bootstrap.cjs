// What runs Node functions: node /var/runtime/bootstrap.cjs. Lambda's rules for handlers, over the Runtime API of the worker beside it.
// The rules are those of AWS's client (aws-lambda-nodejs-runtime-interface-client); this one needs nothing but Node.
'use strict';

const { Api } = require('./api.cjs');
const errors = require('./errors.cjs');
const log = require('./log.cjs');
const { load, isStreaming } = require('./handler.cjs');
const { Runtime } = require('./runtime.cjs');

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
const api = new Api(host, Number(port));
const runtime = new Runtime(api);

// While no event is there, whatever nobody catches is an error of the initialisation.
async function fail(title, error, status) {
  log.failure(title, error);
  try {
    await runtime.report(error);
  } finally {
    process.exit(status);
  }
}

process.on('uncaughtException', (error) => fail('Uncaught Exception', error, 129));
process.on('unhandledRejection', (reason) =>
  fail('Unhandled Promise Rejection', new errors.UnhandledPromiseRejection(reason), 128));

log.takeConsole();
load(process.env.LAMBDA_TASK_ROOT, process.env._HANDLER).then(
  (handler) => runtime.serve(handler, isStreaming(handler)),
  (error) => fail('Uncaught Exception', error, 1),
);
