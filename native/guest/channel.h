/* The guest's end of its channel, as a Python type. Needs Python.h, included by the caller with its
 * API level. */
#ifndef FORKLIGHT_GUEST_CHANNEL_H
#define FORKLIGHT_GUEST_CHANNEL_H

/* Adds the type Channel to the module. 0, or -1 with an exception set. */
int fg_add_channel(PyObject *module);

#endif
