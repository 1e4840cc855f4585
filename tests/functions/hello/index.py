"""The smallest useful function: greets, and says whether this worker has served before."""

calls = 0


def handler(event, context):
    global calls
    calls += 1
    return {"greeting": f"hello {event.get('name', 'world')}", "calls": calls, "request": context.aws_request_id}
