# vitreous. `make run` answers about the bundled pictures and opens the web page;
# `make test` proves the build. `make help` lists the rest.
#
# Every configuration has a build folder of its own (build/release, build/asan, build/tsan), so
# switching never needs a clean.

CONFIG ?= release
BUILD  := build/$(CONFIG)
CC     ?= gcc
PKG    := jansson libpcre2-8 libutf8proc libwebp libwebpdemux libjpeg libmicrohttpd sqlite3 libseccomp

WARN   := -Wall -Wextra -Wshadow -Wconversion -Werror
STD    := -std=c17 -D_GNU_SOURCE -I. -fopenmp -fPIC -ffp-contract=off
OPT    := -O2 -g
LINK   :=
ifeq ($(CONFIG),asan)
OPT    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
LINK   := -fsanitize=address,undefined
endif
ifeq ($(CONFIG),tsan)
OPT    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
LINK   := -fsanitize=thread
endif
CFLAGS_ALL := $(STD) $(WARN) $(OPT) $(shell pkg-config --cflags $(PKG) 2>/dev/null) $(CFLAGS)
LIBS   := $(shell pkg-config --libs $(PKG) 2>/dev/null) -ldl -lpthread -lm

LIB_SRC := $(wildcard common/*.c loader/*.c tokenizer/*.c model/*.c kernels/*.c kernels/cpu/*.c kernels/cuda/*.c)
ARCH    := $(shell $(CC) -dumpmachine | cut -d- -f1)
ifeq ($(ARCH),x86_64)
LIB_SRC := $(filter-out kernels/cpu/neon%,$(LIB_SRC))
else
LIB_SRC := $(filter-out kernels/cpu/avx%,$(LIB_SRC))
endif
BIN_SRC := $(wildcard cli/*.c serve/*.c)
TEST_SRC := $(wildcard tests/*/test_*.c)
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o)
BIN_OBJ := $(BIN_SRC:%.c=$(BUILD)/%.o)
TESTS   := $(TEST_SRC:%.c=$(BUILD)/%)

all: $(BUILD)/libvitreous.a $(if $(BIN_SRC),$(BUILD)/vitreous)

# ISA flags on ISA objects only.
$(BUILD)/kernels/cpu/avx2%.o: ISA := -mavx2 -mfma -mf16c
$(BUILD)/kernels/cpu/avx512%.o: ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c
$(BUILD)/kernels/cpu/avx512bf16%.o: ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mavx2 -mfma
$(BUILD)/kernels/cpu/avx512vnni%.o: ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(ISA) -MMD -MP -c $< -o $@

$(BUILD)/libvitreous.a: $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/vitreous: $(BIN_OBJ) $(BUILD)/libvitreous.a
	$(CC) -fopenmp $(LINK) $^ -o $@ $(LIBS)

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(BUILD)/libvitreous.a
	$(CC) -fopenmp $(LINK) $^ -o $@ $(LIBS)

tests: $(TESTS)

clean:
	rm -rf build

.SECONDARY:
.PHONY: all tests clean
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
