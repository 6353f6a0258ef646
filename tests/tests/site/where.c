/* Says which module and application were called, and how the path was divided. */
#include "host.h"
#include <stdio.h>

static host_body *answer(host_env *env, host_start_response *start_response, const char *name) {
    host_str script = env->get(env, HOST_STR("SCRIPT_NAME")), path = env->get(env, HOST_STR("PATH_INFO"));
    char text[512];
    int len = snprintf(text, sizeof text, "%s %s|%s", name, script.ptr, path.ptr);
    start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
    return env->bytes(env, (host_str){text, (size_t)len});
}

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    return answer(env, start_response, MODULE);
}

HOST_EXPORT host_body *other(host_env *env, host_start_response *start_response) {
    return answer(env, start_response, MODULE ":other");
}
