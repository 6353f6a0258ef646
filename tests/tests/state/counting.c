/* Counts its calls, and has the count kept. PATH_INFO: /look does not count; /hold makes the file GATE.in, and counts when GATE is there;
 * /crash crashes. Compiled with
 *   -DVERSION=…              so that each build is another;
 *   -DFLAGS=…                HOST_NOT_THREAD_SAFE;
 *   -DREPLACE                so that two builds do not work in one process;
 *   -DSAVE=… -DRESTORE=…     code that runs in these functions first; `serving` tells whether it is the real thing;
 *   -DKEPT=…                 a file to which the count is appended when it is saved, and a line when the build is stopped;
 *   -DGATE=…                 the file that /hold waits for. */
#define _GNU_SOURCE
#include "host.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef FLAGS
#define FLAGS 0
#endif
#ifndef GATE
#define GATE "gate"
#endif
#ifdef REPLACE
/* Static TLS, of which a process has a fixed amount. */
__thread int in_static_tls __attribute__((tls_model("initial-exec"))) = VERSION;
#endif

static long count;
static int serving;
static int *volatile nowhere = (int *)16;

static long counted(void) { return __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST); }

static int32_t init(const host_init *init) {
    serving = init->reason == HOST_INIT_SERVE;
    return 0;
}

static int32_t save(host_state *state) {
    char text[32];
    (void)nowhere;
#ifdef SAVE
    SAVE
#endif
    int len = snprintf(text, sizeof text, "%ld", __atomic_load_n(&count, __ATOMIC_SEQ_CST));
#ifdef KEPT
    FILE *file = serving ? fopen(KEPT, "ae") : NULL;
    if (file) {
        fprintf(file, "%s\n", text);
        fclose(file);
    }
#endif
    /* In two parts, and the first is kept first. */
    return state->write(state, HOST_STR("count ")) || state->write(state, (host_str){text, (size_t)len});
}

static int32_t restore(host_str state) {
#ifdef RESTORE
    RESTORE
#endif
    if (state.ptr == NULL || state.ptr[state.len] != 0 || strncmp(state.ptr, "count ", 6) != 0) return HOST_INVALID;
    count = atol(state.ptr + 6);
    return 0;
}

static void stop(void) {
#ifdef KEPT
    FILE *file = fopen(KEPT, "ae");
    fprintf(file, "stop of %d\n", VERSION);
    fclose(file);
#endif
}

HOST_EXPORT const host_module_info host_module = {
    .magic = HOST_MODULE_MAGIC, .size = sizeof(host_module_info), .abi = HOST_ABI, .flags = FLAGS,
    .init = init, .stop = stop, .save = save, .restore = restore,
};

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    host_str path = env->get(env, HOST_STR("PATH_INFO"));
    char text[32], process[32];
    if (strcmp(path.ptr, "/crash") == 0) *nowhere = 1;
    if (strcmp(path.ptr, "/hold") == 0) {
        close(creat(GATE ".in", 0600));
        while (access(GATE, F_OK) != 0) usleep(2000);
    }
    long now = strcmp(path.ptr, "/look") == 0 ? __atomic_load_n(&count, __ATOMIC_SEQ_CST) : counted();
    int len = snprintf(text, sizeof text, "%ld", now);
    int digits = snprintf(process, sizeof process, "%d %d", VERSION, (int)getpid());
    host_header headers[] = {{HOST_STR("X-Build"), {process, (size_t)digits}}};
    start_response->call(start_response, HOST_STR("200 OK"), headers, 1, NULL);
    return env->bytes(env, (host_str){text, (size_t)len});
}
