/* Handlers whose responses end in every way. PATH_INFO says in which. */
#include "host.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A body of three chunks, of 3, 0 and 5 bytes, which ends, or fails instead. */
typedef struct body { host_body base; int given, fails; } body;

static int32_t next(host_body *base, host_str *chunk) {
    static const char *const chunks[] = {"abc", "", "defgh"};
    body *self = (body *)base;
    if (self->given == 3) return self->fails ? -1 : 0;
    const char *text = chunks[self->given++];
    *chunk = (host_str){text, strlen(text)};
    return 1;
}

static void close_body(host_body *base) { free(base); }

static volatile int *nowhere = (volatile int *)16;

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    host_str path = env->get(env, HOST_STR("PATH_INFO"));
    if (strcmp(path.ptr, "/crash") == 0) *nowhere = 1;
    if (strcmp(path.ptr, "/hang") == 0) for (;;) nanosleep(&(struct timespec){1, 0}, NULL);
    if (strcmp(path.ptr, "/slow") == 0) nanosleep(&(struct timespec){0, 50000000}, NULL);
    if (strcmp(path.ptr, "/nothing") == 0) return NULL;
    host_header headers[] = {{HOST_STR("Content-Length"), HOST_STR("10")}};
    int promises = strcmp(path.ptr, "/less") == 0;
    host_writer *writer = start_response->call(start_response, HOST_STR("200 OK"), headers, promises, NULL);
    if (strcmp(path.ptr, "/late-crash") == 0) {
        writer->write(writer, HOST_STR("begun"));
        *nowhere = 1;
    }
    if (strcmp(path.ptr, "/written") == 0) {
        writer->write(writer, HOST_STR("written, "));
        return env->bytes(env, HOST_STR("and returned"));
    }
    if (strcmp(path.ptr, "/chunks") == 0 || strcmp(path.ptr, "/fails") == 0) {
        body *self = calloc(1, sizeof *self);
        self->base = (host_body){.size = sizeof self->base, .count = -1, .next = next, .close = close_body};
        self->fails = strcmp(path.ptr, "/fails") == 0;
        return &self->base;
    }
    return env->bytes(env, HOST_STR("hello\n"));
}
