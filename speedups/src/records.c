/* The records of a batch of format v2 (KIP-98), in one call: the bytes that trio_kprod/_core/_records.py makes.

   Two passes. The first *measures*: it checks what each entry holds, and notes where its bytes are and how
   long its record gets. The second *writes* what was noted into a buffer of just that size. It looks at no
   Python object any more, so for a large batch it lets other threads have the GIL.

   Integers are zigzag varints:

       length | attributes = 0 | timestamp delta | offset delta | key | value | headers                       */

#include "speedups.h"

#include <stdint.h>
#include <string.h>

/* Kafka's lengths have 32 bits. With this bound, some bytes below it, no sum in here can overflow. */
#define LONGEST (INT32_MAX - 512)

/* Below this size the copying takes less time than letting go of the GIL and getting it back. */
#define WORTH_THE_GIL (32 * 1024)

#define NULL_LENGTH (-1)

/* Bytes of an entry: a key, a value, or a part of a header. */
typedef struct {
    const char *bytes;
    Py_ssize_t length;
} Field;

typedef struct {
    Py_ssize_t length; /* of all behind the length itself */
    int64_t delta;     /* between its time stamp and that of the first */
    Py_ssize_t headers;
} Record;

/* What the first pass tells the second. */
typedef struct {
    Record *records;
    Py_ssize_t count;
    Field *fields; /* those of one record after the other: key, value, and two for each header */
    Py_ssize_t fields_used;
    Py_ssize_t fields_room;
    Py_ssize_t header; /* in bytes, as is the size of all records */
    Py_ssize_t size;
    int64_t first; /* time stamps */
    int64_t latest;
} Plan;

/* ---- varints ---------------------------------------------------------------------------------------- */

static uint64_t
zigzag(int64_t number)
{
    return ((uint64_t)number << 1) ^ (number < 0 ? UINT64_MAX : 0);
}

static Py_ssize_t
varint_size(int64_t number)
{
    Py_ssize_t size = 1;
    for (uint64_t rest = zigzag(number); rest > 0x7F; rest >>= 7) {
        size++;
    }
    return size;
}

static char *
write_varint(char *at, int64_t number)
{
    uint64_t rest = zigzag(number);
    for (; rest > 0x7F; rest >>= 7) {
        *at++ = (char)(rest | 0x80);
    }
    *at++ = (char)rest;
    return at;
}

/* ---- the first pass: measuring ---------------------------------------------------------------------- */

static int
too_large(void)
{
    PyErr_SetString(PyExc_OverflowError, "a batch is at most 2 GiB");
    return -1;
}

static int
make_room_for_field(Plan *plan)
{
    if (plan->fields_used < plan->fields_room) {
        return 0;
    }
    Py_ssize_t room = 2 * plan->fields_room;
    Field *fields = PyMem_Realloc(plan->fields, (size_t)room * sizeof(Field));
    if (fields == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    plan->fields = fields;
    plan->fields_room = room;
    return 0;
}

static int
add_field(Plan *plan, Record *record, const char *bytes, Py_ssize_t length)
{
    if (make_room_for_field(plan) < 0) {
        return -1;
    }
    if (length > LONGEST - record->length) {
        return too_large();
    }
    plan->fields[plan->fields_used++] = (Field){bytes, length};
    record->length += varint_size(length) + (length > 0 ? length : 0);
    return 0;
}

static int
add_bytes_or_none(Plan *plan, Record *record, PyObject *given)
{
    char *bytes = NULL;
    Py_ssize_t length = NULL_LENGTH;
    if (given != Py_None && PyBytes_AsStringAndSize(given, &bytes, &length) < 0) {
        return -1;
    }
    return add_field(plan, record, bytes, length);
}

static int
add_text(Plan *plan, Record *record, PyObject *given)
{
    Py_ssize_t length;
    const char *bytes = NULL;
    if (PyUnicode_Check(given)) {
        bytes = PyUnicode_AsUTF8AndSize(given, &length); /* the str keeps them */
    }
    else {
        PyErr_SetString(PyExc_TypeError, "the name of a header is a str");
    }
    return bytes == NULL ? -1 : add_field(plan, record, bytes, length);
}

static int
add_header(Plan *plan, Record *record, PyObject *pair)
{
    if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2) {
        PyErr_SetString(PyExc_TypeError, "a header is a tuple of name and value");
        return -1;
    }
    if (add_text(plan, record, PyTuple_GetItem(pair, 0)) < 0) {
        return -1;
    }
    return add_bytes_or_none(plan, record, PyTuple_GetItem(pair, 1));
}

static int
add_headers(Plan *plan, Record *record, PyObject *headers)
{
    if (!PyTuple_Check(headers)) {
        PyErr_SetString(PyExc_TypeError, "headers are a tuple of pairs");
        return -1;
    }
    record->headers = PyTuple_Size(headers);
    record->length += varint_size(record->headers);
    for (Py_ssize_t i = 0; i < record->headers; i++) {
        if (add_header(plan, record, PyTuple_GetItem(headers, i)) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Time stamps begin at 0, so the difference of two is always an int64_t. */
static int
read_timestamp(PyObject *entry, int64_t *timestamp)
{
    *timestamp = PyLong_AsLongLong(PyTuple_GetItem(entry, TIMESTAMP_MS));
    if (*timestamp < 0 && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "a time stamp is not negative");
    }
    return *timestamp < 0 ? -1 : 0;
}

static int
check_entry(PyObject *entry)
{
    if (PyTuple_Check(entry) && PyTuple_Size(entry) == ENTRY_FIELDS) {
        return 0;
    }
    PyErr_SetString(PyExc_TypeError, "an entry is a tuple of the fields that _messages.py lists");
    return -1;
}

static int
measure_record(Plan *plan, Py_ssize_t offset, PyObject *entry)
{
    Record *record = &plan->records[offset];
    int64_t timestamp;
    if (check_entry(entry) < 0 || read_timestamp(entry, &timestamp) < 0) {
        return -1;
    }
    if (offset == 0) {
        plan->first = timestamp;
    }
    if (timestamp > plan->latest) {
        plan->latest = timestamp;
    }
    record->delta = timestamp - plan->first;
    record->length = 1 + varint_size(record->delta) + varint_size(offset);
    if (add_bytes_or_none(plan, record, PyTuple_GetItem(entry, KEY)) < 0 ||
        add_bytes_or_none(plan, record, PyTuple_GetItem(entry, VALUE)) < 0 ||
        add_headers(plan, record, PyTuple_GetItem(entry, HEADERS)) < 0) {
        return -1;
    }
    if (record->length > LONGEST - plan->size) {
        return too_large();
    }
    plan->size += varint_size(record->length) + record->length;
    return 0;
}

static int
measure(Plan *plan, PyObject *entries)
{
    plan->count = PyTuple_Size(entries);
    if (plan->count == 0) {
        PyErr_SetString(PyExc_ValueError, "a batch has at least one record");
        return -1;
    }
    plan->fields_room = 2 * plan->count; /* right if there are no headers */
    plan->records = PyMem_Calloc((size_t)plan->count, sizeof(Record));
    plan->fields = PyMem_Calloc((size_t)plan->fields_room, sizeof(Field));
    if (plan->records == NULL || plan->fields == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t offset = 0; offset < plan->count; offset++) {
        if (measure_record(plan, offset, PyTuple_GetItem(entries, offset)) < 0) {
            return -1;
        }
    }
    return 0;
}

/* ---- the second pass: writing, without Python ------------------------------------------------------- */

static char *
write_field(char *at, const Field *field)
{
    at = write_varint(at, field->length);
    if (field->length > 0) {
        memcpy(at, field->bytes, (size_t)field->length);
        at += field->length;
    }
    return at;
}

static void
write_records(char *at, const Plan *plan)
{
    const Field *field = plan->fields;
    for (Py_ssize_t offset = 0; offset < plan->count; offset++) {
        const Record *record = &plan->records[offset];
        at = write_varint(at, record->length);
        *at++ = 0;
        at = write_varint(at, record->delta);
        at = write_varint(at, offset);
        at = write_field(at, field++);
        at = write_field(at, field++);
        at = write_varint(at, record->headers);
        for (const Field *end = field + 2 * record->headers; field < end; field++) {
            at = write_field(at, field);
        }
    }
}

static PyObject *
write_batch(const Plan *plan)
{
    PyObject *batch = PyByteArray_FromStringAndSize(NULL, plan->header + plan->size);
    if (batch == NULL) {
        return NULL;
    }
    char *start = PyByteArray_AsString(batch);
    memset(start, 0, (size_t)plan->header);
    if (plan->size < WORTH_THE_GIL) {
        write_records(start + plan->header, plan);
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        write_records(start + plan->header, plan);
        Py_END_ALLOW_THREADS
    }
    return Py_BuildValue("(NL)", batch, (long long)plan->latest);
}

/* ---- the call --------------------------------------------------------------------------------------- */

const char encode_records_doc[] =
    "encode_records($module, entries, header, /)\n--\n\n"
    "The records of a batch behind `header` zero bytes, and the latest of their time stamps.";

PyObject *
encode_records(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *given;
    unsigned char header;
    if (!PyArg_ParseTuple(args, "Ob:encode_records", &given, &header)) {
        return NULL;
    }
    /* A tuple of our own: it keeps each entry, and thereby all bytes, whatever happens to the list. */
    PyObject *entries = PySequence_Tuple(given);
    if (entries == NULL) {
        return NULL;
    }
    Plan plan = {.header = header};
    PyObject *result = measure(&plan, entries) < 0 ? NULL : write_batch(&plan);
    PyMem_Free(plan.records);
    PyMem_Free(plan.fields);
    Py_DECREF(entries);
    return result;
}
