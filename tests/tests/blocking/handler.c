/* Handlers that take their time. PATH_INFO says in which way; those that wait do so until the file exists that the
 * environ's GATE names. */
#include "host.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef FLAGS
#define FLAGS 0
#endif

HOST_EXPORT const host_module_info host_module = {
    .magic = HOST_MODULE_MAGIC, .size = sizeof(host_module_info), .abi = HOST_ABI, .flags = FLAGS,
};

static void wait_for_gate(host_env *env) {
    host_str gate = env->get(env, HOST_STR("GATE"));
    struct timespec time = {0, 2000000};
    env->errors(env, HOST_STR("waiting"));
    while (gate.ptr && access(gate.ptr, F_OK) != 0) nanosleep(&time, NULL);
}

/* A body of one chunk more than it says, which waits in `next` or in `close`. */
typedef struct body { host_body base; host_env *env; const char *text; int wait_in_next, wait_in_close; } body;

static int32_t next(host_body *base, host_str *chunk) {
    body *self = (body *)base;
    if (!self->text) {
        if (self->wait_in_next) wait_for_gate(self->env);
        return 0;
    }
    *chunk = (host_str){self->text, strlen(self->text)};
    self->text = NULL;
    return 1;
}

static void close_body(host_body *base) {
    body *self = (body *)base;
    if (self->wait_in_close) wait_for_gate(self->env);
    self->env->errors(self->env, HOST_STR("closed"));
    free(self);
}

static host_body *new_body(host_env *env, int64_t count, int wait_in_next, int wait_in_close) {
    body *self = calloc(1, sizeof *self);
    self->base = (host_body){.size = sizeof self->base, .count = count, .next = next, .close = close_body};
    self->env = env;
    self->text = "answered\n";
    self->wait_in_next = wait_in_next;
    self->wait_in_close = wait_in_close;
    return &self->base;
}

static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static atomic_int running, peak;

/* Keeps a processor busy for so many milliseconds of the thread's own time. */
static void compute(long ms) {
    int mine = atomic_fetch_add(&running, 1) + 1, seen = atomic_load(&peak);
    while (mine > seen && !atomic_compare_exchange_weak(&peak, &seen, mine)) {}
    for (double end = now(CLOCK_THREAD_CPUTIME_ID) + (double)ms / 1e3; now(CLOCK_THREAD_CPUTIME_ID) < end;) {}
    atomic_fetch_sub(&running, 1);
}

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    host_str path = env->get(env, HOST_STR("PATH_INFO"));
    host_str query = env->get(env, HOST_STR("QUERY_STRING"));
    long number = query.ptr ? atol(query.ptr) : 0;
    host_header headers[] = {
        {HOST_STR("Content-Type"), HOST_STR("text/plain")},
        {HOST_STR("Content-Length"), HOST_STR("9")},
    };
    if (strcmp(path.ptr, "/written") == 0) {
        host_writer *writer = start_response->call(start_response, HOST_STR("200 OK"), headers, 2, NULL);
        writer->write(writer, HOST_STR("answered\n"));
        wait_for_gate(env);
        env->errors(env, HOST_STR("closed"));
        return NULL;
    }
    if (strcmp(path.ptr, "/written-body") == 0) {
        host_writer *writer = start_response->call(start_response, HOST_STR("200 OK"), headers, 2, NULL);
        writer->write(writer, HOST_STR("answered\n"));
        host_body *empty = new_body(env, number, 0, 1);
        ((body *)empty)->text = NULL;
        return empty;
    }
    if (strcmp(path.ptr, "/next") == 0) {
        start_response->call(start_response, HOST_STR("200 OK"), headers, 2, NULL);
        return new_body(env, -1, 1, 0);
    }
    host_writer *writer = start_response->call(start_response, HOST_STR("200 OK"), headers, 1, NULL);
    if (strcmp(path.ptr, "/close") == 0) return new_body(env, 1, 0, 1);
    if (strcmp(path.ptr, "/stream-close") == 0) return new_body(env, -1, 0, 1);
    if (strcmp(path.ptr, "/wait") == 0) {
        wait_for_gate(env);
    } else if (strcmp(path.ptr, "/sleep") == 0) {
        struct timespec time = {number / 1000, number % 1000 * 1000000};
        nanosleep(&time, NULL);
    } else if (strcmp(path.ptr, "/compute") == 0) {
        compute(number);
    } else if (strcmp(path.ptr, "/peak") == 0) {
        char text[16];
        int len = snprintf(text, sizeof text, "%d\n", atomic_load(&peak));
        return env->bytes(env, (host_str){text, (size_t)len});
    } else if (strcmp(path.ptr, "/write") == 0) {
        static const char piece[65536];
        for (long left = number; left > 0; left -= (long)sizeof piece) {
            if (writer->write(writer, (host_str){piece, sizeof piece}) != 0) {
                env->errors(env, HOST_STR("gone"));
                break;
            }
        }
        env->errors(env, HOST_STR("closed"));
        return NULL;
    } else if (strcmp(path.ptr, "/read") == 0) {
        char buffer[4096], text[32];
        long total = 0;
        env->errors(env, HOST_STR("reading"));
        for (int64_t got; (got = env->read(env, buffer, sizeof buffer)) > 0;) total += (long)got;
        int len = snprintf(text, sizeof text, "%ld\n", total);
        return env->bytes(env, (host_str){text, (size_t)len});
    }
    return env->bytes(env, HOST_STR("answered\n"));
}
