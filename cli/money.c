/* money.c: see money.h. */
#include "cli/money.h"

#include <math.h>

double money_annual(double price_hour) { return price_hour * 24 * 365; }

double money_per_request(double price_hour, double rate, double u) {
    return price_hour / (rate * 3600 * u);
}

double money_per_million(double price_hour, double rate, double tokens, double u) {
    return price_hour / (rate * tokens * 3600 * u) * 1e6;
}

double money_instances(double load, double rate, double u, double least) {
    double n = ceil(load / (rate * u) - 1e-9);
    return n > least ? n : least;
}

/* The first fleet's price only changes at multiples of rate1, the second's at multiples of rate2:
 * just above k * rate1 the first needs k + 1 machines. */
double money_break_even(double price1, double rate1, double price2, double rate2) {
    for (int k = 0; k < 100000; k++) {
        double load = k * rate1, second = floor(load / rate2 + 1e-9) + 1;
        if (second * price2 < (k + 1) * price1) return load;
    }
    return NAN;
}
