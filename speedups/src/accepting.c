/* Accepting a message: whether it is a usual one, its entry, the queue, and the counters.

   Usual means: every argument is of just the type that it should be; the topic is known and not limited; there
   is room, nobody waits for some, and nothing has to be woken. Everything else is left to Python.

   A message is accepted as a whole or not at all. What may run Python code comes first: the clock is read, and
   the entry is made, for which the garbage collector may run. From then on there is none, up to the last change
   of a counter: neither Ctrl-C nor another thread nor a finalizer that sends can come between. */

#include "sender.h"

#include <stdint.h>

/* The most that a record and a header take besides their own bytes, see trio_kprod/_messages.py. */
#define RECORD_OVERHEAD 36
#define HEADER_OVERHEAD 10

/* A size that only Python can find out, or an error in its place. */
#define UNKNOWN (-1)

static Outcome
failed_or_unusual(void)
{
    return PyErr_Occurred() ? FAILED : UNUSUAL;
}

/* ---- numbers ---------------------------------------------------------------------------------------- */

/* What is no number leaves an error behind. A counter that was never set is -1, which is not usual. */

static Py_ssize_t
number(PyObject *counter)
{
    return counter == NULL ? -1 : PyLong_AsSsize_t(counter);
}

static double
seconds(PyObject *counter)
{
    return counter == NULL ? -1.0 : PyFloat_AsDouble(counter);
}

static PyObject *
sum(PyObject *counter, PyObject *more)
{
    return counter == NULL ? NULL : PyNumber_Add(counter, more);
}

static PyObject **
fields_of(Sender *self, int counters)
{
    return ((Counters *)self->held[counters])->fields;
}

/* ---- accepting: from here on no Python code runs ---------------------------------------------------- */

static int
is_usual(Sender *self, const Counters *topic, Py_ssize_t size)
{
    PyObject *const *room = fields_of(self, THE_ROOM);
    Py_ssize_t queued = PyObject_Size(self->held[THE_QUEUE]) + 1;
    return topic->fields[TOPIC_LIMITED] == Py_False && number(room[ROOM_TASKS_WAITING]) == 0 &&
           size <= number(topic->fields[TOPIC_MAX_MESSAGE_SIZE]) &&
           number(room[ROOM_UNSETTLED_BYTES]) <= number(room[ROOM_MAX_BYTES]) - size &&
           queued > 0 && queued <= number(room[ROOM_BOUND]) && (double)queued < seconds(room[ROOM_WAKE_AT]) &&
           !PyErr_Occurred();
}

static Outcome
fill(Sender *self, PyObject *entry, Fields fields, const Counters *topic, PyObject *size)
{
    fields[TOPIC] = topic->fields[TOPIC_NAME];
    if (fields[TIMESTAMP_MS] == Py_None) {
        fields[TIMESTAMP_MS] = fields_of(self, THE_INTAKE)[INTAKE_MILLISECOND];
    }
    fields[SIZE] = size;
    fields[RUN] = fields_of(self, THE_LEDGER)[LEDGER_RUN];
    Outcome outcome = DONE;
    for (int field = 0; field < ENTRY_FIELDS; field++) {
        if (fields[field] == NULL) {
            outcome = UNUSUAL;
        }
        Py_XINCREF(fields[field]);
        PyTuple_SetItem(entry, field, fields[field]);
    }
    return outcome;
}

static Outcome
append(Sender *self, PyObject *entry)
{
    PyObject *none = PyObject_CallFunctionObjArgs(self->held[APPEND], entry, NULL);
    Py_XDECREF(none);
    return none == NULL ? FAILED : DONE;
}

static void
replace(PyObject **field, PyObject **value)
{
    PyObject *former = *field;
    *field = *value;
    *value = former;
}

/* Everything that can fail comes before the message is in the queue; the counters follow it for sure. */
static Outcome
append_and_count(Sender *self, Counters *topic, PyObject *entry, PyObject *size)
{
    PyObject **room_bytes = &fields_of(self, THE_ROOM)[ROOM_UNSETTLED_BYTES];
    PyObject **topic_bytes = &topic->fields[TOPIC_UNSETTLED_BYTES], **count = &topic->fields[TOPIC_UNSETTLED];
    PyObject *in_room = sum(*room_bytes, size);
    PyObject *in_topic = sum(*topic_bytes, size);
    PyObject *counted = sum(*count, self->held[ONE]);
    Outcome outcome = in_room && in_topic && counted ? append(self, entry) : failed_or_unusual();
    if (outcome == DONE) {
        replace(room_bytes, &in_room);
        replace(topic_bytes, &in_topic);
        replace(count, &counted);
    }
    Py_XDECREF(in_room);
    Py_XDECREF(in_topic);
    Py_XDECREF(counted);
    return outcome;
}

static Outcome
accept_for(Sender *self, Counters *topic, PyObject *entry, Fields fields, Py_ssize_t size)
{
    if (!is_usual(self, topic, size)) {
        return failed_or_unusual();
    }
    PyObject *counted = PyLong_FromSsize_t(size);
    Outcome outcome = counted == NULL ? FAILED : fill(self, entry, fields, topic, counted);
    if (outcome == DONE) {
        outcome = append_and_count(self, topic, entry, counted);
    }
    Py_XDECREF(counted);
    return outcome;
}

static Outcome
accept_entry(Sender *self, PyObject *entry, Fields fields, Py_ssize_t size)
{
    PyObject *topic = PyDict_GetItemWithError(self->held[THE_TOPICS], fields[TOPIC]);
    if (topic == NULL || !PyObject_TypeCheck(topic, (PyTypeObject *)self->held[TOPIC_TYPE])) {
        return failed_or_unusual();
    }
    Py_INCREF(topic);
    Outcome outcome = accept_for(self, (Counters *)topic, entry, fields, size);
    Py_DECREF(topic);
    return outcome;
}

/* ---- what comes before: the arguments --------------------------------------------------------------- */

static Py_ssize_t
size_of(PyObject *data)
{
    if (data == Py_None) {
        return 0;
    }
    return PyBytes_CheckExact(data) ? PyBytes_Size(data) : UNKNOWN;
}

static Py_ssize_t
size_of_header(PyObject *pair)
{
    if (!PyTuple_CheckExact(pair) || PyTuple_Size(pair) != 2) {
        return UNKNOWN;
    }
    PyObject *name = PyTuple_GetItem(pair, 0);
    Py_ssize_t name_size, value_size = size_of(PyTuple_GetItem(pair, 1));
    if (value_size == UNKNOWN || !PyUnicode_CheckExact(name)) {
        return UNKNOWN;
    }
    if (PyUnicode_AsUTF8AndSize(name, &name_size) == NULL) {
        PyErr_Clear(); /* a surrogate; Python finds it as well, and has words for it */
        return UNKNOWN;
    }
    return HEADER_OVERHEAD + name_size + value_size;
}

static Py_ssize_t
size_of_headers(PyObject *headers)
{
    Py_ssize_t size = 0, count = PyTuple_Size(headers);
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t more = size_of_header(PyTuple_GetItem(headers, i));
        if (more == UNKNOWN) {
            return UNKNOWN;
        }
        size += more;
    }
    return size;
}

static int
is_none_or_up_to(long long most, PyObject *given)
{
    if (given == Py_None) {
        return 1;
    }
    if (!PyLong_CheckExact(given)) {
        return 0;
    }
    long long number = PyLong_AsLongLong(given);
    if (number == -1) {
        PyErr_Clear(); /* it may be one that is too large */
    }
    return 0 <= number && number <= most;
}

/* The size of the message as every bound counts it. */
static Py_ssize_t
measure(Fields fields)
{
    Py_ssize_t key = size_of(fields[KEY]), value = size_of(fields[VALUE]);
    Py_ssize_t headers = size_of_headers(fields[HEADERS]);
    int is_empty = fields[KEY] == Py_None && fields[VALUE] == Py_None;
    if (key == UNKNOWN || value == UNKNOWN || headers == UNKNOWN || is_empty) {
        return UNKNOWN;
    }
    if (!PyUnicode_CheckExact(fields[TOPIC]) || !is_none_or_up_to(INT32_MAX, fields[PARTITION]) ||
        !is_none_or_up_to(INT64_MAX, fields[TIMESTAMP_MS])) {
        return UNKNOWN;
    }
    return RECORD_OVERHEAD + key + value + headers;
}

/* See to it that the time to stamp messages with is that of now. */
static Outcome
read_wall_clock(Sender *self, PyObject *now)
{
    double time = seconds(now), ends = seconds(fields_of(self, THE_INTAKE)[INTAKE_MILLISECOND_ENDS]);
    if (PyErr_Occurred()) {
        return FAILED;
    }
    if (time < ends) {
        return DONE;
    }
    PyObject *millisecond = PyObject_CallFunctionObjArgs(self->held[READ_WALL_CLOCK], now, NULL);
    Py_XDECREF(millisecond);
    return millisecond == NULL ? FAILED : DONE;
}

/* Once it is done, `accepted` is the entry. */
static Outcome
accept_with_headers(Sender *self, Fields fields, PyObject **accepted)
{
    Py_ssize_t size = measure(fields);
    if (size == UNKNOWN) {
        return UNUSUAL;
    }
    Outcome outcome = FAILED;
    PyObject *now = PyObject_CallNoArgs(self->held[THE_CLOCK]);
    PyObject *entry = NULL;
    if (now != NULL && read_wall_clock(self, now) == DONE) {
        entry = PyTuple_New(ENTRY_FIELDS);
    }
    if (entry != NULL) {
        fields[ACCEPTED_AT] = now;
        outcome = accept_entry(self, entry, fields, size);
    }
    if (outcome == DONE) {
        *accepted = Py_NewRef(entry);
    }
    Py_XDECREF(entry);
    Py_XDECREF(now);
    return outcome;
}

/* The headers become a tuple first: a list could change while the clock is read. */
Outcome
accept_message(Sender *self, Fields fields, PyObject **accepted)
{
    PyObject *given = fields[HEADERS] == Py_None ? self->held[NO_HEADERS] : fields[HEADERS];
    if (!PyTuple_CheckExact(given) && !PyList_CheckExact(given)) {
        return UNUSUAL;
    }
    PyObject *headers = PySequence_Tuple(given);
    if (headers == NULL) {
        return FAILED;
    }
    fields[HEADERS] = headers;
    Outcome outcome = accept_with_headers(self, fields, accepted);
    Py_DECREF(headers);
    return outcome;
}

/* Whether this is the trio run in which the producer was opened. */
static Outcome
check_place(Sender *self)
{
    PyObject *token = PyObject_CallNoArgs(self->held[CURRENT_TOKEN]);
    if (token == NULL && PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        PyErr_Clear(); /* no trio run at all; Python finds that out as well, and has words for it */
        return UNUSUAL;
    }
    Py_XDECREF(token);
    if (token == NULL) {
        return FAILED;
    }
    return token == self->held[THE_TOKEN] ? DONE : UNUSUAL;
}

Outcome
accept_message_here(Sender *self, Fields fields, PyObject **accepted)
{
    Outcome outcome = check_place(self);
    return outcome == DONE ? accept_message(self, fields, accepted) : outcome;
}
