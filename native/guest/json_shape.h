/* Answers one question about a value that is to become JSON. Needs Python.h, included by the caller
 * with its API level. */
#ifndef FORKLIGHT_GUEST_JSON_SHAPE_H
#define FORKLIGHT_GUEST_JSON_SHAPE_H

/* 1, 0, or -1 with an exception set. Follows dicts, lists and tuples only. A value that is nested
 * too deeply or is larger than any allowed response gets 0: the encoder will refuse it anyway. */
int fg_has_named_tuples(PyObject *value);

#endif
