#!/bin/bash
# An extension in shell: bash's own TCP, one request a connection.

name=$(basename "$0")
api=${AWS_LAMBDA_RUNTIME_API/://}

call() { # method, path, header, body
  exec 9<>"/dev/tcp/$api"
  printf '%s /2020-01-01/extension/%s HTTP/1.1\r\nConnection: close\r\nLambda-Extension-%s\r\nContent-Length: %d\r\n\r\n%s' \
    "$1" "$2" "$3" "${#4}" "$4" >&9
  cat <&9
  exec 9>&-
}

answer=$(call POST register "Name: $name" '{"events":["INVOKE","SHUTDOWN"]}')
id=$(grep -i '^Lambda-Extension-Identifier:' <<<"$answer" | cut -d' ' -f2 | tr -d '\r')
while event=$(call GET event/next "Identifier: $id" ''); do
  if [[ $event == *'"SHUTDOWN"'* ]]; then
    echo "$name saw $(grep -o '"shutdownReason":"[a-z]*"' <<<"$event" | cut -d'"' -f4)"
    exit 0
  fi
  echo "$name saw $(grep -o '"requestId":"[-0-9a-f]*"' <<<"$event" | cut -d'"' -f4)"
done
