// Finding the handler: `file.function`, `folder/file.object.function`; CommonJS, ES modules and, where Node can, TypeScript.
'use strict';

const fs = require('fs');
const path = require('path');
const { pathToFileURL } = require('url');
const { HandlerNotFound, ImportModuleError, MalformedHandlerName, UserCodeSyntaxError } = require('./errors.cjs');
const { fromStream } = require('./stream.cjs');

const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const TYPESCRIPT_SINCE = 24;

globalThis.awslambda = {
  streamifyResponse(handler) {
    handler[STREAMING] = 'response';
    return handler;
  },
  HttpResponseStream: { from: fromStream },
};

function isStreaming(handler) {
  return Boolean(handler[STREAMING]);
}

async function load(root, name) {
  if (name.includes('..')) {
    throw new MalformedHandlerName(
      `'${name}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`);
  }
  const match = path.basename(name).match(/^([^.]*)\.(.*)$/);
  if (!match) {
    throw new MalformedHandlerName('Bad handler');
  }
  const [, file, property] = match;
  const module = await loadModule(root, path.dirname(name), file);
  const handler = property.split('.').reduce((owner, key) => owner?.[key], module);
  if (!handler) {
    throw new HandlerNotFound(`${name} is undefined or not exported`);
  }
  if (typeof handler !== 'function') {
    throw new HandlerNotFound(`${name} is not a function`);
  }
  return handler;
}

async function loadModule(root, folder, file) {
  try {
    return await find(root, folder, file);
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw new UserCodeSyntaxError(error);
    }
    if (error?.code === 'MODULE_NOT_FOUND') {
      throw new ImportModuleError(error);
    }
    throw error;
  }
}

async function find(root, folder, file) {
  const base = path.resolve(root, folder, file);
  const modules = isModuleFolder(path.dirname(base));
  for (const [suffix, asModule] of choices(modules)) {
    const candidate = base + suffix;
    if (fs.existsSync(candidate) && fs.statSync(candidate).isFile()) {
      return asModule ? await import(pathToFileURL(candidate).href) : require(candidate);
    }
  }
  return require(require.resolve(file, { paths: [root, path.resolve(root, folder)] }));
}

// Suffixes in Lambda's order, and whether what has one is an ES module.
function choices(modules) {
  const plain = [['', false], ['.js', modules], ['.mjs', true], ['.cjs', false]];
  const typed = [['.ts', modules], ['.mts', true], ['.cts', false]];
  return Number(process.versions.node.split('.')[0]) >= TYPESCRIPT_SINCE ? [...plain, ...typed] : plain;
}

// What the nearest package.json says.
function isModuleFolder(folder) {
  if (folder.endsWith('/node_modules')) {
    return false;
  }
  const description = path.join(folder, 'package.json');
  if (fs.existsSync(description)) {
    try {
      return JSON.parse(fs.readFileSync(description, 'utf8'))?.type === 'module';
    } catch (error) {
      console.warn(`${description} cannot be read, it will be ignored for ES module detection purposes.`, error);
      return false;
    }
  }
  return folder !== '/' && isModuleFolder(path.dirname(folder));
}

module.exports = { isStreaming, load };
