/* /read/N, /line/N: reads the content with a buffer of N bytes and answers with what each call gave, "LENGTH:bytes",
 * then with the answers of two more calls. /late: reads when the body is asked. /closing: reads within close. */
#include "host.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct late {
    host_body body;
    host_env *env;
    char bytes[64];
} late;

static int32_t next(host_body *body, host_str *chunk) {
    late *self = (late *)body;
    int64_t count = self->env->read(self->env, self->bytes, sizeof self->bytes);
    *chunk = (host_str){self->bytes, count > 0 ? (size_t)count : 0};
    return count > 0 ? 1 : (int32_t)count;
}

static void closing(host_body *body) {
    late *self = (late *)body;
    char text[64];
    int len = snprintf(text, sizeof text, "read within close: %d", (int)self->env->read(self->env, text, sizeof text));
    self->env->errors(self->env, (host_str){text, (size_t)len});
}

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
    host_str path = env->get(env, HOST_STR("PATH_INFO"));
    if (strcmp(path.ptr, "/late") == 0 || strcmp(path.ptr, "/closing") == 0) {
        late *self = env->alloc(env, sizeof *self);
        self->body = (host_body){.size = sizeof self->body, .count = -1, .next = next, .close = closing};
        self->env = env;
        if (path.ptr[1] == 'c') self->body.count = 0;
        return &self->body;
    }
    int64_t (*call)(host_env *, void *, size_t) = path.ptr[1] == 'l' ? env->readline : env->read;
    size_t size = strtoul(path.ptr + 6, NULL, 10), len = 0, room = 64 << 20;
    char *buffer = env->alloc(env, size), *out = malloc(room);
    for (int ends = 0; ends < 3;) {
        int64_t count = call(env, buffer, size);
        if (count <= 0) ends++;
        len += (size_t)snprintf(out + len, 32, "%lld:", (long long)count);
        if (count > 0) {
            memcpy(out + len, buffer, (size_t)count);
            len += (size_t)count;
        }
    }
    host_body *body = env->bytes(env, (host_str){out, len});
    free(out);
    return body;
}
