/* What the conformance runner of protobuf asks of a newer C library than that of Debian 12, made of what an older one
   has. Loaded before it; where the library is new enough, it does the same. */

#include <stdlib.h>

long __isoc23_strtol(const char *text, char **end, int base) { return strtol(text, end, base); }
unsigned long __isoc23_strtoul(const char *text, char **end, int base) { return strtoul(text, end, base); }
long long __isoc23_strtoll(const char *text, char **end, int base) { return strtoll(text, end, base); }
unsigned long long __isoc23_strtoull(const char *text, char **end, int base) { return strtoull(text, end, base); }

/* std::ios_base_library_init(): older libraries do it by themselves. */
void _ZSt21ios_base_library_initv(void) {}
