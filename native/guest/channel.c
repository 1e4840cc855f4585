/* A worker's end of its channel: whole frames in, whole frames out, blocking.
 *
 * In C because every invocation passes here twice. A small one is one read and one write; time, CPU
 * time and memory are taken on the way. The GIL is released around both: the user's threads go on
 * while the worker waits. */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "channel.h"
#include "frame.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 64 * 1024, UUID_CHARS = 36 };

/* Of frames: sandbox/channel.py. */
enum { INVOKE_STREAM = 4, CHUNK = 20, MAX_CHUNK = 64 * 1024 - sizeof(struct frame_header) };

struct channel {
    PyObject_HEAD;
    int fd;      /* borrowed */
    pid_t owner; /* the one process that may speak here */
    uint8_t nonce[FG_NONCE_BYTES];
    uint64_t received_ns; /* when the last frame, which had that nonce, was complete */
    uint64_t counted_ns;  /* CPU time that has been told, or is no invocation's */
    uint64_t streamed;    /* bytes of its answer that went out in chunks */
    uint16_t kind;        /* of the last frame */
    char *buffer;         /* what was read and not yet taken lies between `start` and `end` */
    size_t start, end;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* CPU time of this process, to the microsecond. One call tells this and the peak of memory. */
static uint64_t usage_ns(struct rusage *used)
{
    getrusage(RUSAGE_SELF, used);
    time_t seconds = used->ru_utime.tv_sec + used->ru_stime.tv_sec;
    long microseconds = used->ru_utime.tv_usec + used->ru_stime.tv_usec;
    return (uint64_t)seconds * 1000000000 + (uint64_t)microseconds * 1000;
}

/* After a failed read or write: 0 when it is to be repeated, -1 with an exception set. */
static int retry(void)
{
    if (errno == EINTR)
        return PyErr_CheckSignals();
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* A task that sleeps in read() is also woken when the host takes the answer out of the socket (the
 * kernel wakes whoever waits for room to write, and they share one list): a switch for nothing in
 * every invocation. One that sleeps in poll() has said what it waits for. */
static ssize_t wait_and_read(int fd, char *target, size_t room)
{
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    ssize_t count = recv(fd, target, room, MSG_DONTWAIT);
    while (count < 0 && errno == EAGAIN) {
        if (poll(&waiting, 1, -1) < 0)
            return -1;
        count = recv(fd, target, room, MSG_DONTWAIT);
    }
    return count;
}

/* The number of bytes, 0 at the end of the stream, -1 with an exception set. */
static ssize_t read_some(int fd, char *target, size_t room)
{
    ssize_t count;
    do {
        Py_BEGIN_ALLOW_THREADS;
        count = wait_and_read(fd, target, room);
        Py_END_ALLOW_THREADS;
    } while (count < 0 && retry() == 0);
    return count;
}

/* The next `count` bytes of the stream: 1, 0 if it ends before, -1 with an exception set. */
static int take(struct channel *channel, char *target, size_t count)
{
    for (;;) {
        size_t held = channel->end - channel->start;
        size_t taken = held < count ? held : count;
        memcpy(target, channel->buffer + channel->start, taken);
        channel->start += taken;
        target += taken;
        count -= taken;
        if (count == 0)
            return 1;
        if (count < BUFFER_BYTES) {
            ssize_t more = read_some(channel->fd, channel->buffer, BUFFER_BYTES);
            if (more <= 0)
                return (int)more;
            channel->start = 0;
            channel->end = (size_t)more;
        } else { /* a large event goes where it belongs at once */
            ssize_t more = read_some(channel->fd, target, count);
            if (more <= 0)
                return (int)more;
            target += more;
            count -= (size_t)more;
        }
    }
}

/* A nonce is a request's id: writes it as UUIDs are written. */
static void write_uuid(char text[UUID_CHARS], const uint8_t nonce[FG_NONCE_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < FG_NONCE_BYTES; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *text++ = '-';
        *text++ = digits[nonce[i] >> 4];
        *text++ = digits[nonce[i] & 15];
    }
}

PyDoc_STRVAR(receive_doc,
             "receive() -> (kind, aux, request id, meta, event), or None when the host has "
             "closed the channel. Blocks.");

static PyObject *receive(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct channel *channel = (struct channel *)self;
    struct frame_header header;
    PyObject *meta = NULL, *event = NULL;
    int more = take(channel, (char *)&header, sizeof header);
    if (more > 0 && header.meta_length > header.length)
        return PyErr_Format(PyExc_ValueError, "the meta part of a frame is longer than its body");
    if (more > 0) {
        size_t event_bytes = header.length - header.meta_length;
        meta = PyBytes_FromStringAndSize(NULL, header.meta_length);
        event = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)event_bytes);
        more = meta && event ? take(channel, PyBytes_AsString(meta), header.meta_length) : -1;
        if (more > 0)
            more = take(channel, PyBytes_AsString(event), event_bytes);
    }
    if (more > 0) {
        char id[UUID_CHARS];
        write_uuid(id, header.nonce);
        memcpy(channel->nonce, header.nonce, FG_NONCE_BYTES);
        channel->received_ns = now_ns();
        channel->kind = header.kind;
        channel->streamed = 0;
        return Py_BuildValue("(HKs#NN)", header.kind, (unsigned long long)header.aux, id,
                             (Py_ssize_t)UUID_CHARS, meta, event);
    }
    Py_XDECREF(meta);
    Py_XDECREF(event);
    return more == 0 ? Py_BuildValue("") : NULL;
}

/* Both parts, whole. None, or NULL with an exception set. What a signal handler raises is for
 * before the first byte: a frame that has begun is finished. */
static PyObject *write_all(const struct channel *channel, struct iovec parts[2])
{
    if (getpid() != channel->owner)
        _exit(0); /* a child that the user's code forked came back to us: it is not the worker */
    int begun = 0;
    while (parts[0].iov_len + parts[1].iov_len > 0) {
        ssize_t count;
        Py_BEGIN_ALLOW_THREADS;
        count = writev(channel->fd, parts, 2);
        Py_END_ALLOW_THREADS;
        if (count < 0 && !(begun && errno == EINTR) && retry() != 0)
            return NULL;
        begun |= count > 0;
        for (int i = 0; i < 2 && count > 0; i++) {
            size_t gone = (size_t)count < parts[i].iov_len ? (size_t)count : parts[i].iov_len;
            parts[i].iov_base = (char *)parts[i].iov_base + gone;
            parts[i].iov_len -= gone;
            count -= (ssize_t)gone;
        }
    }
    return Py_BuildValue("");
}

PyDoc_STRVAR(send_doc, "send(kind, aux, body): a frame that answers no invocation. As answer(), it "
                       "ends a forked child of the worker.");

static PyObject *send_frame(PyObject *self, PyObject *args)
{
    struct frame_header header = {0};
    unsigned long long aux;
    char *body;
    Py_ssize_t body_bytes;
    if (!PyArg_ParseTuple(args, "HKy#", &header.kind, &aux, &body, &body_bytes))
        return NULL;
    header.aux = aux;
    header.length = (uint32_t)body_bytes;
    struct iovec parts[2] = {{&header, sizeof header}, {body, (size_t)body_bytes}};
    return write_all((struct channel *)self, parts);
}

PyDoc_STRVAR(answer_doc, "answer(kind, payload[, cpu_ns, peak_kib]): the outcome of the frame "
                         "received last. Adds the time since then, the CPU time\n"
                         "since the last answer or start_counting(), and the peak of memory.\n"
                         "Where another process ran the code: its CPU time, which is added, and "
                         "its peak.");

static PyObject *answer(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    struct channel *channel = (struct channel *)self;
    struct {
        struct frame_header header;
        struct frame_statistics statistics;
    } __attribute__((packed)) head = {0};
    char *payload;
    Py_ssize_t payload_bytes;
    if (count != 2 && count != 4)
        return PyErr_Format(PyExc_TypeError, "answer() takes kind, payload and both measures");
    long kind = PyLong_AsLong(args[0]);
    uint64_t others_cpu_ns = count == 4 ? PyLong_AsUnsignedLongLong(args[2]) : 0;
    uint64_t others_peak_kib = count == 4 ? PyLong_AsUnsignedLongLong(args[3]) : 0;
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(args[1], &payload, &payload_bytes) != 0)
        return NULL;
    struct rusage used;
    uint64_t cpu_ns = usage_ns(&used);
    head.header.length = (uint32_t)(sizeof head.statistics + (size_t)payload_bytes);
    head.header.kind = (uint16_t)kind;
    memcpy(head.header.nonce, channel->nonce, FG_NONCE_BYTES);
    head.statistics.handler_ns = now_ns() - channel->received_ns;
    head.statistics.cpu_ns = cpu_ns - channel->counted_ns + others_cpu_ns;
    head.statistics.peak_kib = count == 4 ? others_peak_kib : (uint64_t)used.ru_maxrss;
    channel->counted_ns = cpu_ns;
    channel->kind = 0; /* whoever streams from now on is late */
    struct iovec parts[2] = {{&head, sizeof head}, {payload, (size_t)payload_bytes}};
    return write_all(channel, parts);
}

PyDoc_STRVAR(wants_stream_doc, "wants_stream() -> bool: whether the frame received last asked for "
                               "its answer in chunks.");

static PyObject *wants_stream(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct channel *)self)->kind == INVOKE_STREAM);
}

PyDoc_STRVAR(stream_doc, "stream(data): the next bytes of the answer to the frame received last, "
                         "which asked for that.\n"
                         "Blocks while the host takes nothing. Of several threads one at a time.");

static PyObject *stream(PyObject *self, PyObject *args)
{
    struct channel *channel = (struct channel *)self;
    char *data;
    Py_ssize_t left;
    if (!PyArg_ParseTuple(args, "y#", &data, &left))
        return NULL;
    if (channel->kind != INVOKE_STREAM)
        return PyErr_Format(PyExc_ValueError, "no invocation waits for a stream");
    while (left > 0) {
        size_t size = left < MAX_CHUNK ? (size_t)left : MAX_CHUNK;
        struct frame_header header = {
            .length = (uint32_t)size, .kind = CHUNK, .aux = channel->streamed};
        memcpy(header.nonce, channel->nonce, FG_NONCE_BYTES);
        struct iovec parts[2] = {{&header, sizeof header}, {data, size}};
        PyObject *written = write_all(channel, parts);
        if (!written)
            return NULL;
        Py_DECREF(written);
        channel->streamed += size;
        data += size;
        left -= (Py_ssize_t)size;
    }
    return Py_BuildValue("");
}

PyDoc_STRVAR(pending_doc, "pending() -> int: bytes that were read from the socket and belong to "
                          "the next frame. Whoever polls the socket asks first.");

static PyObject *pending(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct channel *channel = (struct channel *)self;
    return PyLong_FromSize_t(channel->end - channel->start);
}

PyDoc_STRVAR(start_counting_doc, "start_counting(): CPU time used up to now is no invocation's.");

static PyObject *start_counting(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct rusage used;
    ((struct channel *)self)->counted_ns = usage_ns(&used);
    return Py_BuildValue("");
}

static PyObject *channel_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    (void)keywords;
    int fd;
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    struct channel *channel = (struct channel *)PyType_GenericAlloc(type, 0);
    if (!channel)
        return NULL;
    channel->fd = fd;
    channel->owner = getpid();
    /* Inside the object it would be zeroed, and cost every worker 64 KiB of memory of its own. */
    channel->buffer = malloc(BUFFER_BYTES);
    if (!channel->buffer) {
        Py_DECREF(channel);
        return PyErr_NoMemory();
    }
    return (PyObject *)channel;
}

static void channel_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    free(((struct channel *)self)->buffer);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"receive", receive, METH_NOARGS, receive_doc},
    {"send", send_frame, METH_VARARGS, send_doc},
    {"answer", (PyCFunction)(void (*)(void))answer, METH_FASTCALL, answer_doc},
    {"pending", pending, METH_NOARGS, pending_doc},
    {"wants_stream", wants_stream, METH_NOARGS, wants_stream_doc},
    {"stream", stream, METH_VARARGS, stream_doc},
    {"start_counting", start_counting, METH_NOARGS, start_counting_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(channel_doc,
             "Channel(fd): borrows a stream socket; made by the process that is to use "
             "it. Errors of the socket are OSErrors.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)channel_doc},
    {Py_tp_new, channel_new},
    {Py_tp_dealloc, channel_free},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "_native.Channel",
    .basicsize = sizeof(struct channel),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

int fg_add_channel(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    int failed = type ? PyModule_AddType(module, (PyTypeObject *)type) : -1;
    Py_XDECREF(type);
    return failed;
}
