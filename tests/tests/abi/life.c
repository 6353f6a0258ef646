/* Writes to the file LIFE what happens to it. /stream: a body whose second chunk waits for the file LIFE.go. */
#include "host.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifndef ANSWER
#define ANSWER "one"
#endif

static void tell(const char *what) {
    FILE *file = fopen(LIFE, "ae");
    fputs(what, file);
    fclose(file);
}

static int32_t init(const host_init *init) {
    char text[64];
    const char *reason = init->reason == HOST_INIT_SERVE ? "serve" : "check";
    snprintf(text, sizeof text, "init %s %d\n", reason, (int)init->generation);
    tell(text);
    return init->size < sizeof *init || init->extension("host.none/1") != NULL;
}

static void stop(void) { tell("stop\n"); }

HOST_EXPORT const host_module_info host_module = {
    .magic = HOST_MODULE_MAGIC, .size = sizeof(host_module_info), .abi = HOST_ABI, .init = init, .stop = stop,
};

typedef struct two {
    host_body body;
    int calls;
} two;

static int32_t next(host_body *body, host_str *chunk) {
    two *self = (two *)body;
    if (self->calls == 1)
        while (access(LIFE ".go", F_OK) != 0) usleep(2000);
    *chunk = self->calls == 0 ? HOST_STR("first\n") : HOST_STR("last\n");
    return self->calls++ < 2;
}

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
    if (strcmp(env->get(env, HOST_STR("PATH_INFO")).ptr, "/stream") != 0) return env->bytes(env, HOST_STR(ANSWER));
    two *self = env->alloc(env, sizeof *self);
    *self = (two){{.size = sizeof self->body, .count = -1, .next = next}, 0};
    return &self->body;
}
