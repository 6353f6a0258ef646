/* Reads the content as it arrives and answers each piece in capitals at once, then what the end was: "end: 0", or the
 * failure twice. /lines: line by line. /next: while the body is made. /unread: does not read it at all. */
#include "host.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

HOST_EXPORT const host_module_info host_module = {
    .magic = HOST_MODULE_MAGIC, .size = sizeof(host_module_info), .abi = HOST_ABI, .flags = HOST_STREAM_INPUT,
};

typedef struct reader {
    host_body body;
    host_env *env;
    char bytes[4096];
} reader;

static void capitals(char *bytes, int64_t count) {
    for (int64_t i = 0; i < count; i++) bytes[i] = (char)toupper((unsigned char)bytes[i]);
}

static int32_t next(host_body *body, host_str *chunk) {
    reader *self = (reader *)body;
    int64_t count = self->env->read(self->env, self->bytes, sizeof self->bytes);
    if (count <= 0) return (int32_t)count;
    capitals(self->bytes, count);
    *chunk = (host_str){self->bytes, (size_t)count};
    return 1;
}

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    host_str path = env->get(env, HOST_STR("PATH_INFO"));
    if (strcmp(path.ptr, "/unread") == 0) {
        start_response->call(start_response, HOST_STR("403 Forbidden"), NULL, 0, NULL);
        return env->bytes(env, HOST_STR("unread"));
    }
    host_writer *writer = start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
    reader *self = env->alloc(env, sizeof *self);
    self->env = env;
    self->body = (host_body){.size = sizeof self->body, .count = -1, .next = next};
    if (strcmp(path.ptr, "/next") == 0) return &self->body;
    int64_t (*call)(host_env *, void *, size_t) = strcmp(path.ptr, "/lines") == 0 ? env->readline : env->read;
    int64_t count;
    while ((count = call(env, self->bytes, sizeof self->bytes)) > 0) {
        capitals(self->bytes, count);
        if (writer->write(writer, (host_str){self->bytes, (size_t)count}) != 0) return NULL;
    }
    char end[64];
    int len = count == 0 ? snprintf(end, sizeof end, "end: 0")
                         : snprintf(end, sizeof end, "end: %d %d", (int)count, (int)call(env, end, 1));
    return env->bytes(env, (host_str){end, (size_t)len});
}
