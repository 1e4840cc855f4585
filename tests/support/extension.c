/* An extension in C: one request a connection, answers read to their end. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORT = 9001, ROOM = 8192 };

/* The whole answer, in a buffer that the next call uses again. */
static char *call(const char *method, const char *path, const char *header, const char *body)
{
    static char text[ROOM];
    struct sockaddr_in api = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    api.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(connection, (struct sockaddr *)&api, sizeof api) != 0)
        exit(1);
    int size = snprintf(text, sizeof text,
                        "%s /2020-01-01/extension/%s HTTP/1.1\r\nConnection: close\r\n"
                        "Lambda-Extension-%s\r\nContent-Length: %zu\r\n\r\n%s",
                        method, path, header, strlen(body), body);
    if (write(connection, text, (size_t)size) != size)
        exit(1);
    size_t filled = 0;
    ssize_t more;
    while ((more = read(connection, text + filled, sizeof text - 1 - filled)) > 0)
        filled += (size_t)more;
    text[filled] = '\0';
    close(connection);
    return text;
}

/* What stands behind `name` in an answer, up to `end`. */
static const char *value_of(char *answer, const char *name, const char *end)
{
    char *found = strstr(answer, name);
    if (found == NULL)
        exit(1);
    found += strlen(name);
    found[strcspn(found, end)] = '\0';
    return found;
}

int main(int count, char **words)
{
    (void)count;
    const char *name = strrchr(words[0], '/') + 1;
    char header[256];
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(header, sizeof header, "Name: %s", name);
    char *answer = call("POST", "register", header, "{\"events\":[\"INVOKE\",\"SHUTDOWN\"]}");
    snprintf(header, sizeof header, "Identifier: %s",
             value_of(answer, "Lambda-Extension-Identifier: ", "\r"));
    for (;;) {
        answer = call("GET", "event/next", header, "");
        if (strstr(answer, "\"SHUTDOWN\"") != NULL) {
            printf("%s saw %s\n", name, value_of(answer, "\"shutdownReason\":\"", "\""));
            return 0;
        }
        printf("%s saw %s\n", name, value_of(answer, "\"requestId\":\"", "\""));
    }
}
