// The handler for workerd.
let calls = 0;
export default {
  async fetch(request) {
    const event = await request.json();
    calls += 1;
    return Response.json({greeting: `hello ${event.name ?? 'world'}`, calls, request: '-'});
  },
};
