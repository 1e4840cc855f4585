/* sandbox.guests.python._native: the little C that the guest needs, for every CPython from 3.10 on:
 * the limited API of 3.11, and nothing of it that 3.10 has not got.
 *
 * A plain extension and not cffi: a function may bundle another cffi than ours. */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "channel.h"
#include "fork_worker.h"
#include "json_shape.h"
#include "remap.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* OSError whose `filename` is the name of the step. */
static PyObject *raise_step(int error, const char *step)
{
    errno = error;
    return PyErr_SetFromErrnoWithFilename(PyExc_OSError, step);
}

static int read_attach(PyObject *list, struct fg_plan *plan)
{
    Py_ssize_t count = PyList_Size(list);
    if (count < 0 || count > FG_MAX_ATTACH)
        goto bad;
    for (Py_ssize_t i = 0; i < count; i++) {
        long fd = PyLong_AsLong(PyList_GetItem(list, i));
        if (fd == -1 && PyErr_Occurred())
            return -1;
        plan->attach[i] = (int)fd;
    }
    plan->attach_count = (size_t)count;
    return 0;
bad:
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "too many cgroup files");
    return -1;
}

/* The paths are borrowed from `list`, which outlives the call. */
static int read_trees(PyObject *list, struct fg_plan *plan)
{
    Py_ssize_t count = PyList_Size(list);
    if (count > FG_MAX_TREES)
        PyErr_SetString(PyExc_ValueError, "too many mounts");
    if (count < 0 || count > FG_MAX_TREES)
        return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pair = PyList_GetItem(list, i);
        if (!pair || !PyArg_ParseTuple(pair, "is", &plan->trees[i].fd, &plan->trees[i].path))
            return -1;
    }
    plan->tree_count = (size_t)count;
    return 0;
}

static int read_rlimits(PyObject *list, struct fg_plan *plan)
{
    Py_ssize_t count = PyList_Size(list);
    if (count > FG_MAX_RLIMITS)
        PyErr_SetString(PyExc_ValueError, "too many resource limits");
    if (count < 0 || count > FG_MAX_RLIMITS)
        return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pair = PyList_GetItem(list, i);
        unsigned long long value;
        if (!pair || !PyArg_ParseTuple(pair, "iK", &plan->rlimits[i].resource, &value))
            return -1;
        plan->rlimits[i].value = value;
    }
    plan->rlimit_count = (size_t)count;
    return 0;
}

PyDoc_STRVAR(
    fork_worker_doc,
    "fork_worker(*, channel, log=-1, shell=-1, join=0, cgroup=-1, attach=[], trees=[], rlimits=[], "
    "drop=False,\n"
    "            set_ids=False, uid=0, gid=0, workdir=None, seccomp=b'', legacy=False, "
    "control=False, hooks=True, orders=-1, reply=b'')\n"
    "-> (pid, pidfd) in the zygote, (0, -1) in the child, which is then set up as asked.\n\n"
    "Borrows every fd. OSError.filename names the step that failed in the zygote. A step that "
    "fails in the\n"
    "child is reported on its channel and ends the child with status 120.\n\n"
    "orders: the socket that the zygote's orders come by. There `reply` goes with the pidfd, and "
    "the "
    "zygote goes on only\n"
    "when the child has had a moment, or when there is another order.\n\n"
    "hooks=False leaves out Python's own steps around a fork, which cost a worker as much as the "
    "clone itself. It is\n"
    "sound only where there is one thread and no user code; the caller must then reseed `random`.");

/* After a fork each page that a process writes to is copied first: some 0.4 ms of what the zygote
 * does next. Somebody waits for the child, and nobody for that; on one processor the scheduler
 * would let them take turns. So the zygote says what must be known, and goes on in a moment, or
 * when there is another order. */
enum { CHILD_FIRST_MS = 2 };

static void report(int orders, const char *text, size_t size, int pidfd)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof pidfd)];
    } control = {.head = {.cmsg_len = CMSG_LEN(sizeof pidfd),
                          .cmsg_level = SOL_SOCKET,
                          .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.head), &pidfd, sizeof pidfd);
    struct iovec part = {(char *)text, size};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control.room};
    ssize_t sent;
    do
        sent = sendmsg(orders, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    /* Else nobody is there any more: the next order is the end of the socket. */
    struct pollfd next = {.fd = orders, .events = POLLIN};
    poll(&next, 1, CHILD_FIRST_MS);
}

static PyObject *fork_worker(PyObject *self, PyObject *args, PyObject *keywords)
{
    (void)self;
    static char *names[] = {"channel", "log",   "shell",   "join",    "cgroup",
                            "attach",  "trees", "rlimits", "drop",    "set_ids",
                            "uid",     "gid",   "workdir", "seccomp", "legacy",
                            "control", "hooks", "orders",  "reply",   NULL};
    struct fg_plan plan = {.channel = -1, .log = -1, .shell = -1, .cgroup = -1};
    PyObject *attach = NULL, *trees = NULL, *rlimits = NULL;
    const char *seccomp = NULL;
    Py_ssize_t seccomp_bytes = 0;
    unsigned int uid = 0, gid = 0;
    int hooks = 1, orders = -1;
    const char *reply = NULL;
    Py_ssize_t reply_bytes = 0;
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "|$iiiiiO!O!O!ppIIzy#pppiy#", names, &plan.channel, &plan.log,
            &plan.shell, &plan.join, &plan.cgroup, &PyList_Type, &attach, &PyList_Type, &trees,
            &PyList_Type, &rlimits, &plan.drop, &plan.set_ids, &uid, &gid, &plan.workdir, &seccomp,
            &seccomp_bytes, &plan.legacy, &plan.control, &hooks, &orders, &reply, &reply_bytes))
        return NULL;
    if (plan.channel < 0)
        return PyErr_Format(PyExc_ValueError, "no channel");
    if ((attach && read_attach(attach, &plan)) || (trees && read_trees(trees, &plan)) ||
        (rlimits && read_rlimits(rlimits, &plan)))
        return NULL;
    plan.uid = uid;
    plan.gid = gid;
    plan.seccomp = seccomp;
    plan.seccomp_bytes = (size_t)seccomp_bytes;

    const char *step = "";
    int pidfd = -1;
    if (hooks)
        PyOS_BeforeFork();
    pid_t pid = fg_clone(&plan, &pidfd, &step);
    if (pid == 0) {
        fg_become_worker(&plan);
        if (hooks)
            PyOS_AfterFork_Child();
        return Py_BuildValue("(ii)", 0, -1);
    }
    if (pid > 0 && orders >= 0)
        report(orders, reply, (size_t)reply_bytes, pidfd);
    if (hooks)
        PyOS_AfterFork_Parent();
    if (pid < 0)
        return raise_step((int)-pid, step);
    return Py_BuildValue("(ii)", (int)pid, pidfd);
}

PyDoc_STRVAR(has_named_tuples_doc, "has_named_tuples(value) -> whether a tuple with _asdict() is "
                                   "somewhere in dicts, lists and tuples of value");

static PyObject *has_named_tuples(PyObject *self, PyObject *value)
{
    (void)self;
    int found = fg_has_named_tuples(value);
    return found < 0 ? NULL : PyBool_FromLong(found);
}

PyDoc_STRVAR(watch_memory_doc, "watch_memory() -> bool: what is allocated from now on may be moved "
                               "by remap(); False where it never will be");

static PyObject *watch_memory(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyBool_FromLong(fg_watch_memory() == 0);
}

PyDoc_STRVAR(remap_doc, "remap() -> bytes moved to where a fork need not copy page tables");

static PyObject *remap(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    size_t bytes = 0;
    int failed = fg_remap(&bytes);
    return failed ? raise_step(-failed, "remap") : PyLong_FromSize_t(bytes);
}

PyDoc_STRVAR(watch_calls_doc, "watch_calls(program) -> fd: install a seccomp program for this "
                              "process and its children; the calls that it hands over are read "
                              "from the fd. OSError.");

static PyObject *watch_calls(PyObject *self, PyObject *program)
{
    (void)self;
    char *code;
    Py_ssize_t bytes;
    if (PyBytes_AsStringAndSize(program, &code, &bytes) != 0)
        return NULL;
    int fd = fg_watch_calls(code, (size_t)bytes);
    return fd < 0 ? raise_step(-fd, "seccomp") : PyLong_FromLong(fd);
}

static PyMethodDef methods[] = {
    {"fork_worker", (PyCFunction)(void (*)(void))fork_worker, METH_VARARGS | METH_KEYWORDS,
     fork_worker_doc},
    {"watch_calls", watch_calls, METH_O, watch_calls_doc},
    {"watch_memory", watch_memory, METH_NOARGS, watch_memory_doc},
    {"remap", remap, METH_NOARGS, remap_doc},
    {"has_named_tuples", has_named_tuples, METH_O, has_named_tuples_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fg_add_channel}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_native",  .m_doc = "C part of the Python guest.",
    .m_size = 0,           .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void);

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
