/* AWS's runtime writes a namedtuple as a JSON object (simplejson's default); the standard library's
 * encoder writes a list and cannot be told otherwise. A response is searched for one first, which
 * costs a few nanoseconds per value. */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "json_shape.h"

enum { MAX_DEPTH = 200, MAX_VALUES = 8 * 1024 * 1024 };

static int search(PyObject *value, int depth, long *budget);

static int search_dict(PyObject *dict, int depth, long *budget)
{
    PyObject *item;
    Py_ssize_t position = 0;
    while (PyDict_Next(dict, &position, NULL, &item)) {
        int found = search(item, depth, budget);
        if (found)
            return found;
    }
    return 0;
}

static int search(PyObject *value, int depth, long *budget)
{
    if (--*budget < 0 || depth > MAX_DEPTH)
        return 0;
    if (PyUnicode_CheckExact(value))
        return 0;
    if (PyDict_Check(value))
        return search_dict(value, depth + 1, budget);
    if (PyList_Check(value)) {
        for (Py_ssize_t i = 0; i < PyList_Size(value); i++) {
            int found = search(PyList_GetItem(value, i), depth + 1, budget);
            if (found)
                return found;
        }
        return 0;
    }
    if (!PyTuple_Check(value))
        return 0;
    if (!PyTuple_CheckExact(value)) {
        PyObject *method = PyObject_GetAttrString((PyObject *)Py_TYPE(value), "_asdict");
        if (method) {
            Py_DECREF(method);
            return 1;
        }
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return -1;
        PyErr_Clear();
    }
    for (Py_ssize_t i = 0; i < PyTuple_Size(value); i++) {
        int found = search(PyTuple_GetItem(value, i), depth + 1, budget);
        if (found)
            return found;
    }
    return 0;
}

int fg_has_named_tuples(PyObject *value)
{
    long budget = MAX_VALUES;
    return search(value, 0, &budget);
}
