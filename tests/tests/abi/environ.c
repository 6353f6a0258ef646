/* /get/KEY: the value of KEY. /each: every key with its value, a line each. /stop/KEY: each, ended at KEY. */
#include "host.h"
#include <stdio.h>
#include <string.h>

typedef struct text {
    host_env *env;
    host_str stop;
    char bytes[16384];
    size_t len;
} text;

static void add(text *self, host_str part) {
    if (part.len > sizeof self->bytes - self->len) part.len = sizeof self->bytes - self->len;
    memcpy(self->bytes + self->len, part.ptr, part.len);
    self->len += part.len;
}

static int32_t visit(void *context, host_str key, host_str value) {
    text *self = context;
    /* A visitor may call back: what it gets is what it is shown. */
    host_str got = self->env->get(self->env, key);
    int same = got.len == value.len && memcmp(got.ptr, value.ptr, got.len) == 0;
    int ended = key.ptr[key.len] == 0 && value.ptr[value.len] == 0 && got.ptr[got.len] == 0;
    if (!same || !ended) add(self, HOST_STR("WRONG "));
    add(self, key);
    add(self, HOST_STR("="));
    add(self, value);
    add(self, HOST_STR("\n"));
    return self->stop.ptr && key.len == self->stop.len && memcmp(key.ptr, self->stop.ptr, key.len) == 0 ? 42 : 0;
}

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    text *self = env->alloc(env, sizeof *self);
    memset(self, 0, sizeof *self);
    self->env = env;
    host_str path = env->get(env, HOST_STR("PATH_INFO"));
    if (strncmp(path.ptr, "/get/", 5) == 0) {
        host_str value = env->get(env, (host_str){path.ptr + 5, path.len - 5});
        add(self, value.ptr ? HOST_STR("value: ") : HOST_STR("absent"));
        add(self, value);
    } else {
        if (strncmp(path.ptr, "/stop/", 6) == 0) self->stop = (host_str){path.ptr + 6, path.len - 6};
        int32_t answer = env->each(env, visit, self);
        self->len += (size_t)snprintf(self->bytes + self->len, 32, "each answered %d", answer);
    }
    start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
    return env->bytes(env, (host_str){self->bytes, self->len});
}
