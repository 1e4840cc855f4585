// The limit of a Node function: the same handler behind Node's own HTTP server, in one process. Prints its port.
const http = require('http');
const { handler } = require('./node/index.js');

const server = http.createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', async () => {
    const body = JSON.stringify(await handler(JSON.parse(Buffer.concat(pieces))));
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
    response.end(body);
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
