// The Runtime API over one connection, one request at a time.
// Between two requests the socket does not keep the process alive: an event loop that is empty but for it is empty for the function.
'use strict';

const net = require('net');

const PREFIX = '/2018-06-01/runtime/';

class Api {
  constructor(host, port) {
    this.host = `${host}:${port}`;
    this.waiting = null;
    this.head = null;
    this.pieces = [];
    this.size = 0;
    this.socket = net.connect({ host, port, noDelay: true });
    this.socket.unref();
    this.socket.on('data', (data) => this.receive(data));
    this.socket.on('error', () => process.exit(1)); // the worker is gone, and we with it
    this.socket.on('end', () => process.exit(1));
  }

  // Resolves to {status, headers, body}. Header names are in lower case.
  call(method, path, body = '', headers = '') {
    const head = `${method} ${PREFIX}${path} HTTP/1.1\r\nHost: ${this.host}\r\n${headers}`;
    const answer = this.expect();
    if (method === 'GET') {
      this.socket.write(`${head}\r\n`, 'latin1');
    } else {
      this.socket.cork();
      this.socket.write(`${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n`, 'latin1');
      this.socket.write(body);
      this.socket.uncork();
    }
    return answer;
  }

  // Begin a request whose body follows by `write`; its answer is what this resolves to.
  begin(path, headers) {
    this.socket.write(
      `POST ${PREFIX}${path} HTTP/1.1\r\nHost: ${this.host}\r\nTransfer-Encoding: chunked\r\n${headers}\r\n`, 'latin1');
    const answer = this.expect();
    this.socket.unref(); // the function has the word until it ends the stream
    return answer;
  }

  write(data, done) {
    if (data.length === 0) {
      done();
      return;
    }
    this.socket.cork();
    this.socket.write(`${data.length.toString(16)}\r\n`, 'latin1');
    this.socket.write(data);
    this.socket.write('\r\n', 'latin1', done);
    this.socket.uncork();
  }

  // The end of what was begun; `trailers`: whole lines.
  end(trailers = '') {
    this.socket.ref();
    this.socket.write(`0\r\n${trailers}\r\n`, 'latin1');
  }

  expect() {
    this.socket.ref();
    return new Promise((resolve) => {
      this.waiting = resolve;
    });
  }

  receive(data) {
    this.pieces.push(data);
    this.size += data.length;
    if (this.head === null) {
      const all = this.pieces.length === 1 ? data : Buffer.concat(this.pieces);
      const end = all.indexOf('\r\n\r\n');
      if (end < 0) {
        this.pieces = [all];
        return;
      }
      this.head = parse(all.toString('utf8', 0, end));
      const rest = all.subarray(end + 4);
      this.pieces = [rest];
      this.size = rest.length;
    }
    if (this.size < this.head.length) {
      return;
    }
    const { status, headers } = this.head;
    const body = this.pieces.length === 1 ? this.pieces[0] : Buffer.concat(this.pieces);
    const resolve = this.waiting;
    this.waiting = null;
    this.head = null;
    this.pieces = [];
    this.size = 0;
    this.socket.unref();
    resolve({ status, headers, body });
  }
}

function parse(text) {
  const [first, ...lines] = text.split('\r\n');
  const headers = {};
  for (const line of lines) {
    const colon = line.indexOf(':');
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  return { status: Number(first.split(' ')[1]), headers, length: Number(headers['content-length'] ?? 0) };
}

module.exports = { Api };
