/* Everything that an application can do with start_response, write and bodies, by PATH_INFO; right and wrong. */
#define _GNU_SOURCE
#include "host.h"
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STR(text) ((host_str){(text), strlen(text)})

/* How many bodies of ours have been given to the host, and how many it has closed. */
static atomic_int given, closed;

typedef struct own {
    host_body body;
    host_env *env;
    host_start_response *start_response;
    host_writer *writer;
    host_body *inner;
    int calls, closes;
    char text[64];
    char path[64];
} own;

static int is(const own *self, const char *path) { return strcmp(self->path, path) == 0; }

static host_writer *start(own *self, const char *status) {
    host_header type = {HOST_STR("Content-Type"), HOST_STR("text/plain")};
    self->writer = self->start_response->call(self->start_response, STR(status), &type, 1, NULL);
    return self->writer;
}

static host_writer *start_with_length(own *self, const char *length) {
    host_header header = {HOST_STR("Content-Length"), STR(length)};
    return self->writer = self->start_response->call(self->start_response, HOST_STR("200 OK"), &header, 1, NULL);
}

static host_writer *restart(own *self, const char *status) {
    host_exc_info info = {.size = sizeof info, .message = HOST_STR("something\x1b[31m went\nwrong")};
    host_header header = {HOST_STR("X-Again"), HOST_STR("yes")};
    return self->start_response->call(self->start_response, STR(status), &header, 1, &info);
}

static int32_t chunk_of(host_str *chunk, const char *text) {
    *chunk = STR(text);
    return 1;
}

static int32_t next(host_body *body, host_str *chunk) {
    own *self = (own *)body;
    int call = ++self->calls;
    if (is(self, "/inner")) return self->inner->next(self->inner, chunk);
    if (is(self, "/next-fails")) return HOST_IO;
    if (is(self, "/next-reserved")) return chunk_of(chunk, "x") + 1;
    if (is(self, "/next-fails-later")) return call < 3 ? chunk_of(chunk, "part\n") : HOST_IO;
    if (is(self, "/next-reserved-later")) return call < 3 ? chunk_of(chunk, "part\n") : 7;
    if (is(self, "/late-start") && call == 1) start(self, "202 Accepted");
    if (is(self, "/start-while-streaming") && call == 2)
        return chunk_of(chunk, start(self, "201 Created") ? "accepted" : "refused");
    if (is(self, "/restart-while-streaming") && call == 2) {
        host_writer *writer = restart(self, "500 Oops");
        return chunk_of(chunk, writer ? "accepted" : "refused");
    }
    if (is(self, "/write-in-next") && call == 1) {
        snprintf(self->text, sizeof self->text, "%d", self->writer->write(self->writer, HOST_STR("x")));
        return chunk_of(chunk, self->text);
    }
    if (is(self, "/empty-chunks") && call < 5) {
        *chunk = (host_str){NULL, 0};
        return 1;
    }
    if (is(self, "/endless")) {
        static char much[65536];
        *chunk = (host_str){much, sizeof much};
        return 1;
    }
    if (is(self, "/slow")) {
        usleep(50000);
        return call < 200 ? chunk_of(chunk, "tick\n") : 0;
    }
    if (is(self, "/count-0")) return chunk_of(chunk, "never asked");
    if (call > 3) return 0;
    snprintf(self->text, sizeof self->text, "%d\n", call);
    return chunk_of(chunk, self->text);
}

static void close_own(host_body *body) {
    own *self = (own *)body;
    /* The environ lives still, and the response is over. */
    int alive = self->env->get(self->env, HOST_STR("PATH_INFO")).ptr != NULL && self->env->alloc(self->env, 100) != NULL;
    int over = self->start_response->call(self->start_response, HOST_STR("200 OK"), NULL, 0, NULL) == NULL;
    if (self->writer) over = over && self->writer->write(self->writer, HOST_STR("x")) == HOST_STATE;
    if (self->inner && self->inner->close) self->inner->close(self->inner);
    if (alive && over && ++self->closes == 1) atomic_fetch_add(&closed, 1);
    else self->env->errors(self->env, HOST_STR("close was wrong"));
}

static host_body *give(own *self, int64_t count) {
    atomic_fetch_add(&given, 1);
    self->body = (host_body){.size = sizeof self->body, .count = count, .next = next, .close = close_own};
    return &self->body;
}

static host_body *say(own *self, const char *text) { return self->env->bytes(self->env, STR(text)); }

/* How many of these the host takes; none of them may be. */
static int refusals(own *self) {
    static const host_str statuses[] = {
        HOST_STR_INIT(""), HOST_STR_INIT("200"), HOST_STR_INIT("200OK"), HOST_STR_INIT("20 OK"),
        HOST_STR_INIT("2000 OK"), HOST_STR_INIT(" 200 OK"), HOST_STR_INIT("100 Continue"),
        HOST_STR_INIT("101 Switching Protocols"), HOST_STR_INIT("199 x"), HOST_STR_INIT("+20 OK"),
        HOST_STR_INIT("200 O\rK"), HOST_STR_INIT("200 O\nK"), HOST_STR_INIT("200 O\0K"), HOST_STR_INIT("2x0 OK"),
        HOST_STR_INIT("200 OK\r\nX: y"), {NULL, 0},
    };
    static const host_header headers[] = {
        {HOST_STR_INIT(""), HOST_STR_INIT("x")}, {HOST_STR_INIT("A B"), HOST_STR_INIT("x")},
        {HOST_STR_INIT("A:"), HOST_STR_INIT("x")}, {HOST_STR_INIT("A\r\nB"), HOST_STR_INIT("x")},
        {HOST_STR_INIT("A"), HOST_STR_INIT("x\r\nB: y")}, {HOST_STR_INIT("A"), HOST_STR_INIT("x\ny")},
        {HOST_STR_INIT("A"), HOST_STR_INIT("x\ry")}, {HOST_STR_INIT("A"), HOST_STR_INIT("x\0y")},
        {HOST_STR_INIT("A"), HOST_STR_INIT("x\x7fy")}, {HOST_STR_INIT("A"), HOST_STR_INIT("x\x01y")},
        {HOST_STR_INIT("Connection"), HOST_STR_INIT("close")}, {HOST_STR_INIT("keep-alive"), HOST_STR_INIT("x")},
        {HOST_STR_INIT("Proxy-Connection"), HOST_STR_INIT("x")}, {HOST_STR_INIT("TE"), HOST_STR_INIT("x")},
        {HOST_STR_INIT("Trailer"), HOST_STR_INIT("x")}, {HOST_STR_INIT("Upgrade"), HOST_STR_INIT("x")},
        {HOST_STR_INIT("Transfer-Encoding"), HOST_STR_INIT("chunked")}, {{NULL, 0}, HOST_STR_INIT("x")},
        {HOST_STR_INIT("Content-Length"), HOST_STR_INIT("x")}, {HOST_STR_INIT("Content-Length"), HOST_STR_INIT("-1")},
        {HOST_STR_INIT("Content-Length"), HOST_STR_INIT("")}, {HOST_STR_INIT("Content-Length"), HOST_STR_INIT("1, 1")},
        {HOST_STR_INIT("Content-Length"), HOST_STR_INIT("99999999999999999999")},
    };
    static const host_header lengths[] = {{HOST_STR_INIT("Content-Length"), HOST_STR_INIT("1")},
                                          {HOST_STR_INIT("Content-Length"), HOST_STR_INIT("2")}};
    int taken = 0;
    host_start_response *start_response = self->start_response;
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        taken += start_response->call(start_response, statuses[i], NULL, 0, NULL) != NULL;
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        taken += start_response->call(start_response, HOST_STR("200 OK"), &headers[i], 1, NULL) != NULL;
    taken += start_response->call(start_response, HOST_STR("200 OK"), lengths, 2, NULL) != NULL;
    return taken;
}

static host_body *file(own *self) {
    host_str query = self->env->get(self->env, HOST_STR("QUERY_STRING"));
    unsigned long long offset = 0, len = UINT64_MAX;
    sscanf(query.ptr, "%llu,%llu", &offset, &len);
    if (is(self, "/file-with-length")) start_with_length(self, "5");
    else if (is(self, "/file-after-write")) start(self, "200 OK")->write(self->writer, HOST_STR("before "));
    else start(self, "200 OK");
    int fd = open(FILE_PATH, O_RDONLY | O_CLOEXEC);
    /* The position does not count. */
    lseek(fd, 3, SEEK_SET);
    if (is(self, "/file-in-middleware")) {
        self->inner = self->env->file(self->env, fd, offset, len);
        strcpy(self->path, "/inner");
        return give(self, -1);
    }
    return self->env->file(self->env, fd, offset, len);
}

static host_body *bad_file(own *self) {
    start(self, "200 OK");
    int fd = -1;
    if (is(self, "/bad-file/closed")) close(fd = dup(1));
    if (is(self, "/bad-file/folder")) fd = open("/", O_RDONLY | O_CLOEXEC);
    if (is(self, "/bad-file/write-only")) fd = open("/tmp", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (is(self, "/bad-file/path-only")) fd = open(FILE_PATH, O_PATH | O_CLOEXEC);
    if (is(self, "/bad-file/device")) fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    return self->env->file(self->env, fd, 0, 10);
}

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    own *self = env->alloc(env, sizeof *self);
    memset(self, 0, sizeof *self);
    self->env = env;
    self->start_response = start_response;
    snprintf(self->path, sizeof self->path, "%s", env->get(env, HOST_STR("PATH_INFO")).ptr);
    char text[128];

    if (is(self, "/balance")) {
        start(self, "200 OK");
        snprintf(text, sizeof text, "%d given, %d closed", atomic_load(&given), atomic_load(&closed));
        return say(self, text);
    }
    if (strncmp(self->path, "/file", 5) == 0) return file(self);
    if (strncmp(self->path, "/bad-file", 9) == 0) return bad_file(self);
    if (is(self, "/null")) return NULL;
    if (is(self, "/null-started")) return start(self, "204 No Content") ? NULL : say(self, "refused");
    if (is(self, "/empty")) return start(self, "200 OK") ? NULL : say(self, "refused");
    if (is(self, "/not-started")) return say(self, "content without a head");
    if (is(self, "/not-started-own") || is(self, "/late-start")) return give(self, -1);
    if (is(self, "/bytes-empty")) return start(self, "200 OK") ? env->bytes(env, HOST_STR("")) : NULL;
    if (is(self, "/bytes-absent")) return start(self, "200 OK") ? env->bytes(env, (host_str){NULL, 0}) : NULL;
    if (is(self, "/bytes-unused")) {
        start(self, "200 OK");
        for (int i = 0; i < 100; i++) env->bytes(env, HOST_STR("not returned"));
        return say(self, "returned");
    }
    if (is(self, "/refusals")) {
        int taken = refusals(self);
        start(self, "200 OK");
        snprintf(text, sizeof text, "%d taken", taken);
        return say(self, text);
    }
    if (is(self, "/start-twice")) {
        start(self, "200 OK");
        return say(self, start(self, "201 Created") ? "accepted" : "refused");
    }
    if (is(self, "/restart")) {
        start(self, "200 OK");
        self->writer->write(self->writer, HOST_STR("")); /* sends nothing, no head either */
        return say(self, restart(self, "418 Teapot") ? "again" : "refused");
    }
    if (is(self, "/restart-badly")) {
        start(self, "202 Accepted");
        return say(self, restart(self, "bad") ? "accepted" : "as before");
    }
    if (is(self, "/restart-after-head")) {
        start(self, "200 OK")->write(self->writer, HOST_STR("part"));
        return restart(self, "500 Oops") ? say(self, "accepted") : NULL;
    }
    if (is(self, "/write")) {
        host_writer *writer = start(self, "200 OK");
        for (int i = 0; i < 3; i++) writer->write(writer, HOST_STR("written "));
        return say(self, "and returned");
    }
    if (is(self, "/write-only")) {
        start(self, "200 OK")->write(self->writer, HOST_STR("written"));
        return NULL;
    }
    if (is(self, "/write-and-fail")) {
        start(self, "200 OK")->write(self->writer, HOST_STR("written"));
        strcpy(self->path, "/next-fails");
        return give(self, -1);
    }
    if (is(self, "/write-too-much")) {
        host_writer *writer = start_with_length(self, "5");
        int first = writer->write(writer, HOST_STR("hello world"));
        int second = writer->write(writer, HOST_STR("x"));
        snprintf(text, sizeof text, "write answered %d, then %d", first, second);
        env->errors(env, STR(text));
        return NULL;
    }
    if (is(self, "/write-much")) {
        host_writer *writer = start(self, "200 OK");
        static char much[1 << 16];
        int answer = 0;
        for (int i = 0; i < 2000 && answer == 0; i++) answer = writer->write(writer, (host_str){much, sizeof much});
        int again = writer->write(writer, HOST_STR("x"));
        snprintf(text, sizeof text, "write answered %d, then %d", answer, again);
        env->errors(env, STR(text));
        return give(self, -1);
    }
    if (is(self, "/too-long")) return start_with_length(self, "5") ? say(self, "hello world") : NULL;
    if (is(self, "/too-long-own")) return start_with_length(self, "3") ? give(self, -1) : NULL;
    if (is(self, "/too-short")) return start_with_length(self, "50") ? say(self, "hello") : NULL;
    if (is(self, "/too-short-own")) return start_with_length(self, "50") ? give(self, -1) : NULL;
    if (is(self, "/exact-own")) return start_with_length(self, "6") ? give(self, -1) : NULL;
    if (is(self, "/errors")) {
        env->errors(env, HOST_STR("first \x1b[31mline\nsecond \xff line\r\n\n2026 error fake"));
        return start(self, "200 OK") ? say(self, "logged") : NULL;
    }
    if (is(self, "/alloc")) {
        int wrong = 0;
        for (size_t size = 0; size < 100000; size = size * 3 + 1) {
            unsigned char *at = env->alloc(env, size);
            wrong += at == NULL || (uintptr_t)at % 16 != 0;
            if (at) memset(at, 0xaa, size);
        }
        wrong += env->alloc(env, SIZE_MAX) != NULL;
        start(self, "200 OK");
        snprintf(text, sizeof text, "%d wrong", wrong);
        return say(self, text);
    }
    if (is(self, "/extension"))
        return start(self, "200 OK") ? say(self, env->extension(env, "host.none/1") ? "something" : "nothing") : NULL;

    start(self, "200 OK");
    if (is(self, "/no-body")) {
        memset(&self->body, 0xff, sizeof self->body);
        return &self->body;
    }
    if (is(self, "/no-close")) {
        self->body = (host_body){.size = sizeof self->body, .count = -1, .next = next};
        return &self->body;
    }
    if (is(self, "/no-next")) {
        self->body = (host_body){.size = sizeof self->body, .count = -1};
        return &self->body;
    }
    if (is(self, "/middleware")) {
        self->inner = say(self, "from the host");
        strcpy(self->path, "/inner");
        return give(self, self->inner->count);
    }
    if (is(self, "/middleware-first-chunk")) {
        host_str chunk;
        host_body *inner = say(self, "taken by the module");
        inner->next(inner, &chunk);
        self->writer->write(self->writer, chunk);
        return inner;
    }
    if (is(self, "/count-0")) return give(self, 0);
    if (is(self, "/count-1")) return give(self, 1);
    if (is(self, "/count-2")) return give(self, 2);
    if (is(self, "/count-3")) return give(self, 3);
    return give(self, -1);
}
