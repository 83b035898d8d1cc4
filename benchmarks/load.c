/* Clients that cost next to nothing: one thread, epoll, each connection sends its next request when it has its answer.
 *
 *     load PORT REQUEST_FILE CONNECTIONS WARM SECONDS RAMP EVERY STATUS
 *
 * REQUEST_FILE holds a whole request as it goes out. Connections are opened over RAMP seconds; what comes in the first
 * WARM seconds does not count. EVERY: seconds between two requests of a connection, 0 for at once. An answer of another
 * STATUS is an error. Prints one line when the counting begins and one JSON object when it ends, then holds its
 * connections until its input is closed, so that nobody who measures the proxy measures their end.
 *
 * "@T" and sixteen hexadecimal digits in a body tell when that chunk was sent; its age on arrival is what the proxy
 * added. They are found however the bytes are cut and whatever translation they went through.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 8192, REQUEST_MAX = 4 << 20, BATCH = 512, STAMP = 18, ERRORS_MAX = 10000 };
#define SECOND 1000000000.0

/* How far the answer is read: IDLE is before a request, LINE a chunk's size, GAP the line end behind its data. */
enum place { IDLE, HEAD, BODY, LINE, DATA, GAP, TRAILER };

struct connection {
    int fd;
    enum place place;
    char head[HEAD_MAX];
    size_t have, unsent;
    uint64_t left, began, stamp;
    int seen;                   /* bytes of a stamp */
    bool first, right, closing, blank;
};

/* Counts by size, 128 steps to each doubling: percentiles that are true to less than one percent. */
struct histogram { uint64_t count, steps[64 * 128]; };

static struct histogram latency, first_byte, age;
static struct { uint64_t answers, chunks, errors; int status; } counts;
static char request[REQUEST_MAX];
static size_t request_size;
static int port, status, poller;
static uint64_t every;
static bool stopped;

static void die(const char *what) { perror(what); exit(1); }

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void add(struct histogram *h, uint64_t value) {
    int doublings = value < 128 ? 0 : 63 - __builtin_clzll(value) - 6;
    h->steps[doublings * 64 + (value >> doublings)]++;
    h->count++;
}

static double percentile(const struct histogram *h, double share) {
    uint64_t rank = (uint64_t)((double)h->count * share), passed = 0;
    for (size_t i = 0; i < sizeof h->steps / sizeof *h->steps; i++)
        if ((passed += h->steps[i]) > rank) {
            size_t doublings = i < 128 ? 0 : i / 64 - 1;
            return (double)((i - doublings * 64) << doublings) / 1000;
        }
    return 0;
}

static void print_histogram(const char *name, const struct histogram *h) {
    printf(", \"%s\": {\"count\": %" PRIu64 ", \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"max\": %.1f}", name,
           h->count, percentile(h, .5), percentile(h, .9), percentile(h, .99), percentile(h, 1 - 1e-9));
}

/* Connections. */

static void send_request(struct connection *c) {
    while (c->unsent) {
        ssize_t count = send(c->fd, request + request_size - c->unsent, c->unsent, MSG_NOSIGNAL);
        if (count < 0) return;  /* full: there is an event when it is not; broken: reading shows it */
        c->unsent -= (size_t)count;
    }
}

static void ask(struct connection *c) {
    c->place = HEAD;
    c->have = 0;
    c->seen = 0;
    c->first = true;
    c->unsent = request_size;
    c->began = now();
    send_request(c);
}

static void dial(struct connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) die("connect");
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &(struct epoll_event){.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c});
    c->closing = false;
    ask(c);
}

static void dial_again(struct connection *c) {
    close(c->fd);
    if (!stopped && counts.errors < ERRORS_MAX) dial(c);
    else c->fd = -1;
}

static void fail(struct connection *c) {
    counts.errors++;
    dial_again(c);
}

static void complete(struct connection *c) {
    counts.answers++;
    if (!c->right) counts.errors++;
    add(&latency, now() - c->began);
    c->place = IDLE;
    if (c->closing) dial_again(c);
    else if (!every) ask(c);
}

/* Answers. */

static int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

static void stamped(uint64_t stamp) {
    uint64_t time = now();
    counts.chunks++;
    if (stamp && stamp < time) add(&age, time - stamp);
}

static void read_stamps(struct connection *c, const char *data, size_t size) {
    for (const char *end = data + size; data < end; data++) {
        if (!c->seen) {
            if (!(data = memchr(data, '@', (size_t)(end - data)))) return;
            c->seen = 1;
            c->stamp = 0;
        } else if (c->seen == 1) {
            c->seen = *data == 'T' ? 2 : *data == '@';
        } else if (digit(*data) < 0) {
            c->seen = *data == '@';
        } else {
            c->stamp = c->stamp << 4 | (uint64_t)digit(*data);
            if (++c->seen == STAMP) { c->seen = 0; stamped(c->stamp); }
        }
    }
}

static size_t read_body(struct connection *c, const char *data, size_t size) {
    if (size > c->left) size = c->left;
    if (c->first) { c->first = false; add(&first_byte, now() - c->began); }
    read_stamps(c, data, size);
    c->left -= size;
    return size;
}

/* Takes bytes of the head; how many of them were its own. Sets where to read on, IDLE when it makes no sense. */
static size_t read_head(struct connection *c, const char *data, size_t size) {
    size_t before = c->have, taken = size < HEAD_MAX - 1 - before ? size : HEAD_MAX - 1 - before;
    memcpy(c->head + before, data, taken);
    c->have += taken;
    c->head[c->have] = 0;
    char *end = strstr(c->head + (before > 3 ? before - 3 : 0), "\r\n\r\n");
    if (!end) {
        if (c->have == HEAD_MAX - 1) c->place = IDLE;
        return taken;
    }
    end[2] = 0;
    counts.status = atoi(c->head + 9);
    c->right = counts.status == status;
    c->closing = strcasestr(c->head, "\r\nconnection: close");
    const char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->left = length ? strtoull(length + 17, NULL, 10) : 0;
    c->place = strcasestr(c->head, "\r\ntransfer-encoding: chunked") ? LINE : length ? BODY : IDLE;
    return (size_t)(end + 4 - c->head) - before;
}

static void read_line(struct connection *c, char byte) {
    if (byte == '\n') {
        c->place = c->left ? DATA : TRAILER;
        c->blank = true;
    } else if (digit(byte | 32) >= 0) c->left = c->left << 4 | (uint64_t)digit(byte | 32);
}

/* True when the blank line behind the last chunk is through. */
static bool read_trailer(struct connection *c, char byte) {
    if (byte == '\n' && c->blank) return true;
    c->blank = byte == '\n' || (byte == '\r' && c->blank);
    return false;
}

/* Takes what came for a connection; false: it is no answer. */
static bool read_answer(struct connection *c, const char *data, size_t size) {
    for (const char *end = data + size; data < end;) {
        switch (c->place) {
        case IDLE:
            return false;
        case HEAD:
            data += read_head(c, data, (size_t)(end - data));
            if (c->place == IDLE) return false;
            if (c->place == BODY && !c->left) complete(c);
            break;
        case BODY:
            data += read_body(c, data, (size_t)(end - data));
            if (!c->left) { complete(c); return data == end; }
            break;
        case LINE:
            read_line(c, *data++);
            break;
        case DATA:
            data += read_body(c, data, (size_t)(end - data));
            if (!c->left) c->place = GAP;
            break;
        case GAP:
            if (*data++ == '\n') c->place = LINE;
            break;
        case TRAILER:
            if (read_trailer(c, *data++)) { complete(c); return data == end; }
            break;
        }
    }
    return true;
}

static void receive(struct connection *c) {
    static char data[262144];
    for (int fd = c->fd; c->fd == fd;) {
        ssize_t count = recv(fd, data, sizeof data, 0);
        if (count < 0 && errno == EAGAIN) return;
        if (count <= 0 || !read_answer(c, data, (size_t)count)) { fail(c); return; }
        if ((size_t)count < sizeof data) return;
    }
}

/* The run. */

static void ask_when_due(struct connection *connections, int opened) {
    uint64_t time = now();
    for (struct connection *c = connections; c < connections + opened; c++)
        if (c->fd >= 0 && c->place == IDLE && time >= c->began + every) ask(c);
}

static void turn(struct connection *connections, int opened, int patience) {
    struct epoll_event ready[BATCH];
    int found = epoll_wait(poller, ready, BATCH, patience);
    for (int i = 0; i < found; i++) {
        struct connection *c = ready[i].data.ptr;
        if (c->fd < 0) continue;
        if (ready[i].events & EPOLLOUT) send_request(c);
        if (ready[i].events & ~(uint32_t)EPOLLOUT) receive(c);
    }
    if (every) ask_when_due(connections, opened);
}

static void forget(void) {
    memset(&latency, 0, sizeof latency);
    memset(&first_byte, 0, sizeof first_byte);
    memset(&age, 0, sizeof age);
    counts.answers = counts.chunks = 0;
}

static void report(uint64_t time) {
    printf("{\"seconds\": %.6f, \"answers\": %" PRIu64 ", \"chunks\": %" PRIu64 ", \"errors\": %" PRIu64 ", \"status\": %d",
           (double)time / SECOND, counts.answers, counts.chunks, counts.errors, counts.status);
    print_histogram("latency", &latency);
    print_histogram("first_byte", &first_byte);
    print_histogram("age", &age);
    printf("}\n");
    fflush(stdout);
}

int main(int count, char **arguments) {
    if (count != 9) { fprintf(stderr, "usage: load PORT REQUEST_FILE CONNECTIONS WARM SECONDS RAMP EVERY STATUS\n"); return 2; }
    FILE *file = fopen(arguments[2], "rb");
    if (!file) die(arguments[2]);
    request_size = fread(request, 1, sizeof request, file);
    signal(SIGPIPE, SIG_IGN);
    port = atoi(arguments[1]);
    status = atoi(arguments[8]);
    int wanted = atoi(arguments[3]), opened = 0;
    uint64_t start = now(), warm = start + (uint64_t)(atof(arguments[4]) * SECOND);
    uint64_t end = warm + (uint64_t)(atof(arguments[5]) * SECOND), ramp = (uint64_t)(atof(arguments[6]) * SECOND), counting = 0;
    every = (uint64_t)(atof(arguments[7]) * SECOND);
    poller = epoll_create1(0);
    struct connection *connections = calloc((size_t)wanted, sizeof *connections);
    for (uint64_t time; (time = now()) < end;) {
        while (opened < wanted && time >= start + ramp * (uint64_t)opened / (uint64_t)wanted) dial(&connections[opened++]);
        if (!counting && time >= warm) { forget(); printf("counting\n"); fflush(stdout); counting = now(); }
        uint64_t next = counting ? end : warm;
        turn(connections, opened, opened < wanted || every ? 1 : (int)((next - time) / 1000000 + 1));
    }
    stopped = true;
    report(now() - counting);
    while (getchar() != EOF);
    return 0;
}
