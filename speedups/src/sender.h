/* What a `Sender` is, and what it can do with a message: shared by sender.c and accepting.c. */

#include "speedups.h"

/* What a sender holds: its arguments, then what it makes of them. */
enum {
    THE_ROOM,
    THE_INTAKE,
    THE_LEDGER,
    THE_TOPICS,
    THE_QUEUE,
    THE_CLOCK,
    READ_WALL_CLOCK,
    THE_TOKEN,
    CURRENT_TOKEN,
    SEND_NOWAIT,
    OFFER,
    ACCEPT_ITEM,
    APPEND,
    TOPIC_TYPE,
    NO_HEADERS,
    ONE,
    HELD
};

typedef struct {
    PyObject_HEAD
    PyObject *held[HELD];
} Sender;

/* The fields of an entry in the making, all borrowed. The first are the arguments of the send, in this order. */
typedef PyObject *Fields[ENTRY_FIELDS];

/* What became of an attempt. */
typedef enum { FAILED = -1, UNUSUAL, DONE } Outcome;

/* Queue the message that is made of these fields; once it is done, `accepted` is its entry. */
Outcome accept_message(Sender *self, Fields fields, PyObject **accepted);

/* The same, if this is the trio run in which the producer was opened. */
Outcome accept_message_here(Sender *self, Fields fields, PyObject **accepted);
