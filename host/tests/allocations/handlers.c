/* Handlers for the tests that count the host's allocations. The ones that are called frugal allocate nothing. */
#include "host.h"
#include <stdlib.h>

static host_body *text(host_env *env, host_start_response *start_response, host_str status, host_str body) {
    host_header headers[] = {{HOST_STR("Content-Type"), HOST_STR("text/plain")}, {HOST_STR("X-Size"), HOST_STR("1")}};
    start_response->call(start_response, status, headers, 2, NULL);
    return env->bytes(env, body);
}

HOST_EXPORT host_body *hello(host_env *env, host_start_response *start_response) {
    return text(env, start_response, HOST_STR("200 OK"), HOST_STR("Hello, World!\n"));
}

HOST_EXPORT host_body *nothing(host_env *env, host_start_response *start_response) {
    (void)env;
    start_response->call(start_response, HOST_STR("204 No Content"), NULL, 0, NULL);
    return NULL;
}

/* Takes memory, which must not have anything in it from the request before, and some of the environ's values. */
HOST_EXPORT host_body *variables(host_env *env, host_start_response *start_response) {
    static const char *const names[] = {
        "REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR",
        "REMOTE_PORT", "REQUEST_URI", "SCRIPT_NAME", "HTTP_ABSENT", "wsgi.url_scheme",
    };
    unsigned char *memory = env->alloc(env, 300);
    for (int at = 0; at < 300; at++)
        if (memory[at]) return text(env, start_response, HOST_STR("500 Internal Server Error"), HOST_STR("used\n"));
    size_t bytes = 0;
    for (size_t at = 0; at < sizeof names / sizeof *names; at++) {
        size_t length = 0;
        while (names[at][length]) length++;
        host_str value = env->get(env, (host_str){names[at], length});
        for (size_t copied = 0; copied < value.len && bytes < 300; copied++) memory[bytes++] = value.ptr[copied];
    }
    return text(env, start_response, HOST_STR("200 OK"), (host_str){(char *)memory, bytes});
}

/* Has a second thought, and makes a body that it does not return. */
HOST_EXPORT host_body *restart(host_env *env, host_start_response *start_response) {
    host_exc_info error = {sizeof error, 0, {NULL, 0}};
    env->bytes(env, HOST_STR("not this one\n"));
    start_response->call(start_response, HOST_STR("404 Not Found"), NULL, 0, NULL);
    start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, &error);
    return NULL;
}

/* Writes over what belongs to the host, which the host must not pass on to the next request. */
HOST_EXPORT host_body *vandal(host_env *env, host_start_response *start_response) {
    host_body *body = text(env, start_response, HOST_STR("200 OK"), HOST_STR("fine\n"));
    body->next = NULL, body->close = NULL, body->count = 7;
    env->get = NULL, env->bytes = NULL, env->alloc = NULL;
    start_response->call = NULL;
    return body;
}

/* A reason phrase that the host does not know has to be kept: an allocation. */
HOST_EXPORT host_body *wasteful(host_env *env, host_start_response *start_response) {
    return text(env, start_response, HOST_STR("200 Fine"), HOST_STR("Hello, World!\n"));
}

HOST_EXPORT host_body *large(host_env *env, host_start_response *start_response) {
    static char chunk[1 << 20];
    return text(env, start_response, HOST_STR("200 OK"), (host_str){chunk, sizeof chunk});
}
