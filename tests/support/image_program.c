/* The one program of the tests' container images: a runtime that looks around. An event is a JSON
 * string, "COMMAND ARGUMENT"; the answer is a JSON string with what it has found. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static char answer[1 << 20];
static char found[1 << 18];

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

static void say(const char *text)
{
    size_t used = strlen(found);
    snprintf(found + used, sizeof found - used, "%s\n", text);
}

static void say_errno(void)
{
    char text[64];
    snprintf(text, sizeof text, "errno %d", errno);
    say(text);
}

static void list(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    if (!folder) {
        say_errno();
        return;
    }
    while ((entry = readdir(folder)))
        if (entry->d_name[0] != '.')
            say(entry->d_name);
    closedir(folder);
}

static void show(const char *path)
{
    size_t used = strlen(found);
    int fd = open(path, O_RDONLY);
    ssize_t count = fd < 0 ? -1 : read(fd, found + used, 65536);
    if (count < 0)
        say_errno();
    else
        found[used + (size_t)count] = 0;
    if (fd >= 0)
        close(fd);
}

static void put(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, "x", 1) != 1)
        say_errno();
    else
        say("written");
    if (fd >= 0)
        close(fd);
}

static void ids(const char *path)
{
    struct stat status;
    char text[128];
    if (stat(path, &status) != 0) {
        say_errno();
        return;
    }
    snprintf(text, sizeof text, "%u %u %o", getuid(), geteuid(), status.st_mode & 07777);
    say(text);
}

static void run(char *command, int argc, char **argv)
{
    char *argument = strchr(command, ' ');
    char cwd[4096];
    if (argument)
        *argument++ = 0;
    else
        argument = command + strlen(command);
    if (strcmp(command, "env") == 0)
        for (char **line = environ; *line; line++)
            say(*line);
    else if (strcmp(command, "argv") == 0)
        for (int i = 0; i < argc; i++)
            say(argv[i]);
    else if (strcmp(command, "cwd") == 0)
        say(getcwd(cwd, sizeof cwd));
    else if (strcmp(command, "list") == 0)
        list(argument);
    else if (strcmp(command, "show") == 0)
        show(argument);
    else if (strcmp(command, "put") == 0)
        put(argument);
    else if (strcmp(command, "ids") == 0)
        ids(argument);
    else if (strcmp(command, "exit") == 0)
        exit(atoi(argument));
    else if (strcmp(command, "sleep") == 0)
        sleep((unsigned)atoi(argument));
    else if (strcmp(command, "memory") == 0)
        for (size_t i = 0; i < (size_t)atoi(argument); i++)
            memset(malloc(1 << 20), 1, 1 << 20);
    else
        say("?");
}

static char *quoted(void)
{
    static char text[1 << 20];
    char *out = text;
    *out++ = '"';
    for (const unsigned char *c = (const unsigned char *)found; *c; c++) {
        if (*c < ' ' || *c == '"' || *c == '\\' || *c > '~')
            out += sprintf(out, "\\u%04x", *c);
        else
            *out++ = (char)*c;
    }
    *out++ = '"';
    *out = 0;
    return text;
}

int main(int argc, char **argv)
{
    puts("the image's program starts");
    fflush(stdout);
    for (;;) {
        char *event = strdup(call("GET /2018-06-01/runtime/invocation/next", ""));
        char *id = strstr(answer, "Lambda-Runtime-Aws-Request-Id: ") + 31;
        char request[256];
        snprintf(request, sizeof request, "POST /2018-06-01/runtime/invocation/%.36s/response", id);
        size_t length = strlen(event);
        found[0] = 0;
        if (length > 1) {
            event[length - 1] = 0;
            run(event + 1, argc, argv);
        }
        call(request, quoted());
        free(event);
    }
}
