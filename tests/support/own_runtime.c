/* A runtime for `provided.al2023` that echoes its events: one connection per request, as a shell
 * with curl has it. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char answer[1 << 20];

/* The answer's head and body are in `answer`; returns the body. */
static char *call(const char *request, const char *body)
{
    char host[64];
    snprintf(host, sizeof host, "%s", getenv("AWS_LAMBDA_RUNTIME_API"));
    char *colon = strchr(host, ':');
    *colon = 0;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(colon + 1))};
    inet_pton(AF_INET, host, &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        exit(1);
    dprintf(fd, "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
            request, strlen(body), body);
    size_t used = 0;
    ssize_t count;
    while ((count = read(fd, answer + used, sizeof answer - 1 - used)) > 0)
        used += (size_t)count;
    answer[used] = 0;
    close(fd);
    char *end = strstr(answer, "\r\n\r\n");
    if (!end)
        exit(2);
    return end + 4;
}

int main(void)
{
    for (;;) {
        char *event = strdup(call("GET /2018-06-01/runtime/invocation/next", ""));
        char *id = strstr(answer, "Lambda-Runtime-Aws-Request-Id: ") + 31;
        char request[256];
        snprintf(request, sizeof request, "POST /2018-06-01/runtime/invocation/%.36s/response", id);
        call(request, event);
        free(event);
    }
}
