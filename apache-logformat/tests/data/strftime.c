/* Writes strftime.tsv: what glibc makes of every conversion with flags, a width
 * and a modifier, in the C locale. Run with glibc 2.36:
 *
 *     cc -o strftime strftime.c && TZ=America/New_York ./strftime > strftime.tsv
 *
 * A line is: seconds of the epoch, the format, and the result in hex.
 */
#include <stdio.h>
#include <time.h>

static void print(time_t second, const char *format) {
    struct tm tm;
    char out[512];
    localtime_r(&second, &tm);
    size_t length = strftime(out, sizeof out, format, &tm);
    printf("%ld\t%s\t", (long)second, format);
    for (size_t i = 0; i < length; i++)
        printf("%02x", (unsigned char)out[i]);
    printf("\n");
}

int main(void) {
    const time_t seconds[] = {1316387908, 253402250400, -70000000000, 1609459199, 1293944400};
    const char *conversions = "aAbBcCdDeEfFgGhHIijJkKlLmMnNOpPqQrRsStTuUvVwWxXyYzZ%+:!. ";
    const char *flags[] = {"", "-", "_", "0", "^", "#", "_^"};
    const char *widths[] = {"", "1", "12"};
    const char *modifiers[] = {"", "E", "O"};
    const char *ends[] = {"%", "%5", "%-", "%E", "%_12", "abc%", "%05", "%^", "%5E", "x%#O"};

    for (size_t s = 0; s < sizeof seconds / sizeof *seconds; s++) {
        for (const char *c = conversions; *c; c++)
            for (size_t f = 0; f < sizeof flags / sizeof *flags; f++)
                for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
                    for (size_t m = 0; m < sizeof modifiers / sizeof *modifiers; m++) {
                        /* All of them for the first instant, a sample for the others. */
                        if (s > 0 && (f > 0 || w > 0 || m > 0))
                            continue;
                        char format[32];
                        snprintf(format, sizeof format, "%%%s%s%s%c", flags[f], widths[w],
                                 modifiers[m], *c);
                        print(seconds[s], format);
                    }
        for (size_t e = 0; e < sizeof ends / sizeof *ends; e++)
            print(seconds[s], ends[e]);
    }
}
