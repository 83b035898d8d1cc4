/* An upstream that costs next to nothing: one thread, epoll, every answer rendered before the first request comes.
 *
 *     mock PORT FOLDER
 *
 * FOLDER/routes has one line for each kind of answer: NAME, a part of the request's path, and when it streams
 * ("whole" never, "stream" always, "asked" when the body says "stream": true). FOLDER/NAME.{whole,head,event,tail}
 * hold the bytes as they go out, HTTP framing included. In an event, "@T" and sixteen digits become the time of its
 * sending (CLOCK_MONOTONIC in ns, hexadecimal); an AWS event-stream frame gets its checksum anew.
 *
 *     GET /behave?events=300&pause=20000&delay=0   how streams run from now on; microseconds
 *     GET /stats                                   counters; `aborted_at` is when an answer last lost its reader
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST_KEPT = 8192, ROUTES = 16, BACKLOG = 4096, BATCH = 512, WRITES_A_TURN = 64, STAMP = 16, EVENT_MAX = 65536 };

struct bytes { char *data; size_t size; };
struct wire { struct bytes whole, head, event, tail; char *stamp, *frame; };
struct route { char needle[64]; enum { WHOLE, STREAM, ASKED } when; struct wire wire; };

/* What goes out next; a connection with nothing to send reads its next request. */
enum next { READ, SEND_WHOLE, SEND_HEAD, SEND_EVENT, SEND_TAIL, SEND_END };

struct connection {
    int fd;
    enum next next;
    const struct wire *wire;
    char *in;                   /* the head of the request and the beginning of its body */
    size_t have, missing;       /* bytes of it; bytes of the body that are still to come */
    struct bytes unsent;        /* what the socket did not take */
    bool blocked;
    long events;
    uint64_t due;
    size_t place;               /* in the heap, from 1; 0: not waiting for a time */
};

static struct route routes[ROUTES];
static size_t route_count;
static long events = 300, pause_us, delay_us;
static struct { uint64_t requests, active, aborted, aborted_at, sent, open; } stats;
static int poller;

static void die(const char *what) { perror(what); exit(1); }

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Connections that wait for a time: a binary heap, the earliest first. */

static struct connection **heap;
static size_t heap_size, heap_room;

static void settle(size_t place, struct connection *c) { heap[place] = c; c->place = place; }

static void rise(size_t place, struct connection *c) {
    for (; place > 1 && heap[place / 2]->due > c->due; place /= 2) settle(place, heap[place / 2]);
    settle(place, c);
}

static void sink(size_t place, struct connection *c) {
    for (size_t child; (child = place * 2) <= heap_size; place = child) {
        if (child < heap_size && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= c->due) break;
        settle(place, heap[child]);
    }
    settle(place, c);
}

static void wait_until(struct connection *c, uint64_t due) {
    if (heap_size + 1 >= heap_room) {
        heap_room = heap_room ? heap_room * 2 : 1024;
        if (!(heap = realloc(heap, heap_room * sizeof *heap))) die("memory");
    }
    c->due = due;
    rise(++heap_size, c);
}

static void stop_waiting(struct connection *c) {
    if (!c->place) return;
    size_t place = c->place;
    struct connection *last = heap[heap_size--];
    c->place = 0;
    if (last == c) return;
    if (place > 1 && heap[place / 2]->due > last->due) rise(place, last);
    else sink(place, last);
}

/* Answers. */

static uint32_t checksum(const unsigned char *data, size_t size) {
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t entry = i;
            for (int bit = 0; bit < 8; bit++) entry = entry & 1 ? 0xEDB88320u ^ (entry >> 1) : entry >> 1;
            table[i] = entry;
        }
    uint32_t sum = ~0u;
    while (size--) sum = table[(sum ^ *data++) & 255] ^ (sum >> 8);
    return ~sum;
}

/* A connection is told of what it can do next only as long as it wants to do it. */
static void want(struct connection *c, bool blocked) {
    if (c->blocked == blocked) return;
    struct epoll_event interest = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &interest);
    c->blocked = blocked;
}

static void keep_unsent(struct connection *c, const char *data, size_t size) {
    char *rest = malloc(size);
    if (!rest) die("memory");
    memcpy(rest, data, size);
    free(c->unsent.data);
    c->unsent = (struct bytes){rest, size};
}

/* Sends what it can; false: the socket takes no more for now, or is broken, which reading will show. */
static bool send_bytes(struct connection *c, const char *data, size_t size) {
    ssize_t count = send(c->fd, data, size, MSG_NOSIGNAL);
    size_t sent = count > 0 ? (size_t)count : 0;
    stats.sent += sent;
    if (sent < size) keep_unsent(c, data + sent, size - sent);
    want(c, sent < size);
    return sent == size;
}

static bool send_unsent(struct connection *c) {
    struct bytes rest = c->unsent;
    if (!rest.size) return true;
    c->unsent = (struct bytes){0};
    bool done = send_bytes(c, rest.data, rest.size);
    free(rest.data);
    return done;
}

static bool send_event(struct connection *c) {
    static const char digits[] = "0123456789abcdef";
    const struct wire *wire = c->wire;
    char event[EVENT_MAX];
    memcpy(event, wire->event.data, wire->event.size);
    if (wire->stamp) {
        char *stamp = event + (wire->stamp - wire->event.data);
        uint64_t time = now();
        for (int i = STAMP - 1; i >= 0; i--, time >>= 4) stamp[i] = digits[time & 15];
    }
    if (wire->frame) {
        unsigned char *frame = (unsigned char *)event + (wire->frame - wire->event.data);
        uint32_t size, sum;
        memcpy(&size, frame, 4);
        size = ntohl(size) - 4;
        sum = htonl(checksum(frame, size));
        memcpy(frame + size, &sum, 4);
    }
    return send_bytes(c, event, wire->event.size);
}

/* Sends on until the answer is whole, the socket is full or the next event is not due yet. */
static void advance(struct connection *c) {
    if (!send_unsent(c)) return;
    for (int writes = 0;; writes++) {
        bool more = true;
        switch (c->next) {
        case READ:
            return;
        case SEND_WHOLE:
            c->next = SEND_END;
            more = send_bytes(c, c->wire->whole.data, c->wire->whole.size);
            break;
        case SEND_HEAD:
            c->next = SEND_EVENT;
            more = send_bytes(c, c->wire->head.data, c->wire->head.size);
            if (pause_us && more) { wait_until(c, now() + (uint64_t)pause_us * 1000); return; }
            break;
        case SEND_EVENT:
            if (!c->events--) { c->next = SEND_TAIL; break; }
            if (writes >= WRITES_A_TURN) { c->events++; wait_until(c, 0); return; }
            more = send_event(c);
            if (pause_us && more) {
                uint64_t due = c->due + (uint64_t)pause_us * 1000, time = now();
                wait_until(c, due > time ? due : time);
                return;
            }
            break;
        case SEND_TAIL:
            c->next = SEND_END;
            more = send_bytes(c, c->wire->tail.data, c->wire->tail.size);
            break;
        case SEND_END:
            c->next = READ;
            c->have = 0;
            stats.active--;
            return;
        }
        if (!more) return;
    }
}

/* Requests. */

static long parameter(const char *query, const char *name, long otherwise) {
    const char *found = strstr(query, name);
    return found ? atol(found + strlen(name)) : otherwise;
}

static void reply(struct connection *c, const char *format, ...) {
    char body[512], answer[700];
    va_list values;
    va_start(values, format);
    int size = vsnprintf(body, sizeof body, format, values);
    va_end(values);
    size = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, body);
    send_bytes(c, answer, (size_t)size);
    c->have = 0;
}

static bool asks_for_stream(const struct connection *c) {
    return memmem(c->in, c->have, "\"stream\":true", 13) || memmem(c->in, c->have, "\"stream\": true", 14);
}

/* Answers the request that is complete in `in`. */
static void answer(struct connection *c) {
    char *path = strchr(c->in, ' ') + 1, *end = strpbrk(path, " \r\n");
    *end = 0;
    if (!strncmp(path, "/behave", 7)) {
        events = parameter(path, "events=", events);
        pause_us = parameter(path, "pause=", pause_us);
        delay_us = parameter(path, "delay=", delay_us);
        reply(c, "{}");
        return;
    }
    if (!strcmp(path, "/stats")) {
        reply(c, "{\"requests\":%" PRIu64 ",\"active\":%" PRIu64 ",\"aborted\":%" PRIu64 ",\"aborted_at\":%" PRIu64
              ",\"sent\":%" PRIu64 ",\"open\":%" PRIu64 "}",
              stats.requests, stats.active, stats.aborted, stats.aborted_at, stats.sent, stats.open);
        return;
    }
    const struct route *route = routes;
    while (route < routes + route_count && !strstr(path, route->needle)) route++;
    if (route == routes + route_count) { reply(c, "{\"error\":\"no such path\"}"); return; }
    *end = ' ';
    stats.requests++;
    stats.active++;
    c->wire = &route->wire;
    c->events = events;
    c->next = route->when == STREAM || (route->when == ASKED && asks_for_stream(c)) ? SEND_HEAD : SEND_WHOLE;
    if (delay_us) wait_until(c, now() + (uint64_t)delay_us * 1000);
    else advance(c);
}

static bool start_body(struct connection *c) {
    c->in[c->have] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return false;
    const char *length = strcasestr(c->in, "\r\ncontent-length:");
    size_t body = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
    size_t here = c->have - (size_t)(end + 4 - c->in);
    c->missing = body > here ? body - here : 0;
    return true;
}

/* Reads what has come; false: the other side is gone. What does not fit `in` is counted and forgotten. */
static bool receive(struct connection *c) {
    static char scratch[262144];
    for (;;) {
        size_t room = REQUEST_KEPT - c->have;
        ssize_t count = recv(c->fd, room ? c->in + c->have : scratch, room ? room : sizeof scratch, 0);
        if (count < 0 && errno == EAGAIN) return true;
        if (count <= 0 || c->next != READ) return false;
        if (room) c->have += (size_t)count;
        if (c->missing) {
            if ((size_t)count > c->missing) return false;
            c->missing -= (size_t)count;
        } else if (!start_body(c)) {
            if (c->have == REQUEST_KEPT) return false;
            continue;
        }
        if (!c->missing) { answer(c); return true; }
    }
}

static void drop(struct connection *c) {
    if (c->next != READ) { stats.active--; stats.aborted++; stats.aborted_at = now(); }
    stop_waiting(c);
    close(c->fd);
    stats.open--;
    free(c->unsent.data);
    free(c->in);
    free(c);
}

static void accept_all(int listener) {
    for (int fd, one = 1; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        struct connection *c = calloc(1, sizeof *c);
        if (!c || !(c->in = malloc(REQUEST_KEPT + 1))) die("memory");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        c->fd = fd;
        stats.open++;
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = c});
    }
}

/* Start. */

static struct bytes read_file(const char *folder, const char *name, const char *part) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.%s", folder, name, part);
    FILE *file = fopen(path, "rb");
    if (!file) return (struct bytes){0};
    struct bytes read = {malloc(1 << 20), 0};
    read.size = fread(read.data, 1, 1 << 20, file);
    fclose(file);
    return read;
}

static struct wire read_wire(const char *folder, const char *name) {
    struct wire wire = {read_file(folder, name, "whole"), read_file(folder, name, "head"),
                        read_file(folder, name, "event"), read_file(folder, name, "tail"), NULL, NULL};
    if (wire.event.size > EVENT_MAX) die("an event is too large");
    if (!wire.event.size) return wire;
    char *stamp = memmem(wire.event.data, wire.event.size, "@T", 2);
    char *inside = memmem(wire.event.data, wire.event.size, "\r\n", 2);
    wire.stamp = stamp ? stamp + 2 : NULL;
    /* A frame begins with its length, so with a zero; text never does. */
    wire.frame = inside && !inside[2] ? inside + 2 : NULL;
    return wire;
}

static void read_routes(const char *folder) {
    char path[1024], name[64], when[16];
    snprintf(path, sizeof path, "%s/routes", folder);
    FILE *file = fopen(path, "r");
    if (!file) die(path);
    while (route_count < ROUTES && fscanf(file, "%63s %63s %15s", name, routes[route_count].needle, when) == 3) {
        routes[route_count].when = *when == 'w' ? WHOLE : *when == 's' ? STREAM : ASKED;
        routes[route_count++].wire = read_wire(folder, name);
    }
    fclose(file);
}

static int listen_on(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, BACKLOG)) die("listen");
    return listener;
}

static void run_due(void) {
    uint64_t time = now();
    for (size_t turns = heap_size; turns && heap_size && heap[1]->due <= time; turns--) {
        struct connection *c = heap[1];
        stop_waiting(c);
        advance(c);
    }
}

/* Milliseconds until the first is due, rounded up: the stamp tells when it truly went out. */
static int patience(void) {
    if (!heap_size) return -1;
    uint64_t time = now(), due = heap[1]->due;
    return due <= time ? 0 : (int)((due - time + 999999) / 1000000);
}

int main(int count, char **arguments) {
    if (count != 3) { fprintf(stderr, "usage: mock PORT FOLDER\n"); return 2; }
    signal(SIGPIPE, SIG_IGN);
    read_routes(arguments[2]);
    int listener = listen_on(atoi(arguments[1]));
    poller = epoll_create1(0);
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN, .data.ptr = NULL});
    for (struct epoll_event ready[BATCH];;) {
        int found = epoll_wait(poller, ready, BATCH, patience());
        for (int i = 0; i < found; i++) {
            struct connection *c = ready[i].data.ptr;
            if (!c) accept_all(listener);
            else if (ready[i].events & ~(uint32_t)EPOLLOUT && !receive(c)) drop(c);
            else if (ready[i].events & EPOLLOUT && c->blocked) advance(c);
        }
        run_due();
    }
}
