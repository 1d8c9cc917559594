/* money.h: the arithmetic of a cost report, by hand-checkable formulas.
 *
 *   always on       price x 24 x 365
 *   per request     price / (rate x 3600 x u)           u: share of the hour that is really used
 *   per 1M tokens   price / (rate x tokens x 3600 x u) x 1e6
 *   instances       ceil(load / (rate x u)), at least the minimum for availability
 *   break-even      the load above which the second kind of machine makes the cheaper fleet
 */
#ifndef VL_MONEY_H
#define VL_MONEY_H

double money_annual(double price_hour);
double money_per_request(double price_hour, double rate, double u);
double money_per_million(double price_hour, double rate, double tokens, double u);
/* load and rate in requests per second. */
double money_instances(double load, double rate, double u, double least);
/* Requests per second; fleets of whole machines, each carrying at most its rate. NAN: the second
 * is never cheaper (looked at up to 100,000 machines of the first kind). */
double money_break_even(double price1, double rate1, double price2, double rate2);

#endif
