/* A module of ABI 1.0 that uses everything which lives in a struct: host_module, init, stop, each function of env,
 * write, exc_info, a body of its own. */
#include "host.h"
#include <string.h>

static uint64_t generation;

static int32_t init(const host_init *told) {
    if (told->size < sizeof *told || told->extension("nobody.has.this/1")) return 1;
    generation = told->generation;
    return 0;
}

static void stop(void) {}

HOST_EXPORT const host_module_info host_module = {
    .magic = HOST_MODULE_MAGIC,
    .size = sizeof(host_module_info),
    .abi = HOST_ABI,
    .flags = HOST_NOT_THREAD_SAFE,
    .name = "described",
    .version = "1.0",
    .init = init,
    .stop = stop,
};

typedef struct lines {
    host_body body;
    host_str *line, *end;
} lines;

static int32_t next(host_body *body, host_str *chunk) {
    lines *self = (lines *)body;
    if (self->line == self->end) return 0;
    *chunk = *self->line++;
    return 1;
}

static int32_t count(void *context, host_str key, host_str value) {
    (void)value;
    if (key.len == 14 && !memcmp(key.ptr, "REQUEST_METHOD", 14)) ++*(int *)context;
    return 0;
}

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    int methods = 0;
    char line[64];
    host_env_each(env, count, &methods);
    int64_t length = host_env_readline(env, line, sizeof line);
    length += host_env_read(env, line + length, sizeof line - (size_t)length);
    host_start(start_response, HOST_STR("500 Early"), NULL, 0, NULL);
    host_exc_info error = {sizeof error, 0, HOST_STR("replaced, as it was not sent")};
    host_header headers[] = {{HOST_STR("X-Generation"), generation == 1 ? HOST_STR("1") : HOST_STR("?")}};
    host_writer *out = host_start(start_response, HOST_STR("200 OK"), headers, 1, &error);
    if (!out || env->abi < HOST_ABI || methods != 1 || env->extension(env, "nobody.has.this/1")) return NULL;
    host_writer_write(out, (host_str){line, (size_t)length});
    lines *self = host_env_alloc(env, sizeof *self + 2 * sizeof(host_str));
    self->body = (host_body){.size = sizeof self->body, .count = -1, .next = next};
    self->line = (host_str *)(self + 1);
    self->end = self->line + 2;
    self->line[0] = HOST_STR(" then ");
    self->line[1] = host_env_get(env, HOST_STR("PATH_INFO"));
    return &self->body;
}
