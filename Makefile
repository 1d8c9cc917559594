# vitreous. `make run` answers about the bundled pictures and opens the web page;
# `make test` proves the build. `make help` lists the rest.
#
# Every configuration has a build folder of its own (build/release, build/asan, build/tsan), so
# switching never needs a clean. All paths are relative: the tree may live in a folder with spaces.

CONFIG ?= release
BUILD  := build/$(CONFIG)
PREFIX ?= /usr/local
VERSION := $(shell sed -n 's/^\#define VL_VERSION "\(.*\)"/\1/p' vitreous.h)
SONAME := libvitreous.so.0

LIB_PKG   := jansson libpcre2-8 libutf8proc libwebp libwebpdemux
# Without libjpeg-turbo (make NO_JPEG=1, from a clean build) stb_image reads JPEG, not quite as Pillow.
ifndef NO_JPEG
LIB_PKG   += libjpeg
JPEG      := -DVL_HAVE_LIBJPEG
endif
SERVE_PKG := libmicrohttpd sqlite3 libseccomp
# Only its headers: `load` and `serve --allow-image-urls` open libcurl at run time.
HEADER_PKG := libcurl
PKG       := $(LIB_PKG) $(SERVE_PKG) $(HEADER_PKG)
PKG_CFLAGS := $(shell pkg-config --cflags $(PKG) 2>/dev/null)
LIB_LIBS   := $(shell pkg-config --libs $(LIB_PKG) 2>/dev/null)
SERVE_LIBS := $(shell pkg-config --libs $(SERVE_PKG) 2>/dev/null)

# One short line per step; V=1 shows the commands.
Q := $(if $(V),,@)
say = @$(if $(V),:,printf '  %-5s %s\n' $(1) '$@')

WARN   := -Wall -Wextra -Wshadow -Wconversion -Werror
OPENMP := -fopenmp
STD    := -std=c17 -D_GNU_SOURCE -I. -fPIC -ffp-contract=off
OPT    := -O2 -g
SAN    :=
ifeq ($(CONFIG),asan)
OPT    := -O1 -g -fno-omit-frame-pointer
SAN    := -fsanitize=address,undefined -fno-sanitize-recover=all
endif
ifeq ($(CONFIG),tsan)
OPT    := -O1 -g -fno-omit-frame-pointer
SAN    := -fsanitize=thread
endif
# libFuzzer comes with clang; without it tests/fuzz/driver.c mutates the seeds under gcc's sanitizers.
ifeq ($(CONFIG),fuzz)
OPT    := -O1 -g -fno-omit-frame-pointer
SAN    := -fsanitize=address,undefined -fno-sanitize-recover=all
HAVE_CLANG := $(shell command -v clang)
ifneq ($(HAVE_CLANG),)
CC     := clang
SAN    += -fsanitize=fuzzer-no-link
WARN   := -Wall -Wno-unknown-pragmas
OPENMP :=
FUZZ_LINK := -fsanitize=fuzzer
endif
endif
CFLAGS_ALL := $(STD) $(JPEG) $(OPENMP) $(WARN) $(OPT) $(SAN) $(PKG_CFLAGS) $(CFLAGS)
LINK   := $(OPENMP) $(SAN) $(LDFLAGS)
SYS_LIBS := -ldl -lpthread -lm

LIBS     := $(LIB_LIBS) $(SYS_LIBS)
ALL_LIBS := $(SERVE_LIBS) $(LIBS)

ARCH    := $(shell $(CC) -dumpmachine | cut -d- -f1)
NOT_OURS := $(if $(filter x86_64,$(ARCH)),kernels/cpu/neon%,kernels/cpu/avx%)
LIB_SRC  := $(filter-out $(NOT_OURS),$(wildcard common/*.c loader/*.c tokenizer/*.c model/*.c \
              kernels/*.c kernels/cpu/*.c kernels/cuda/*.c))
CLI_SRC   := $(wildcard cli/*.c)
SERVE_SRC := $(wildcard serve/*.c)
TEST_SRC  := $(wildcard tests/*/test_*.c)
FUZZ_SRC  := $(wildcard tests/fuzz/fuzz_*.c)
LIB_OBJ   := $(LIB_SRC:%.c=$(BUILD)/%.o)
CLI_OBJ   := $(CLI_SRC:%.c=$(BUILD)/%.o)
SERVE_OBJ := $(SERVE_SRC:%.c=$(BUILD)/%.o)
TESTS     := $(TEST_SRC:%.c=$(BUILD)/%)
FUZZERS   := $(FUZZ_SRC:%.c=$(BUILD)/%)
BIN       := $(BUILD)/vitreous
LIBA      := $(BUILD)/libvitreous.a
LIBSO     := $(BUILD)/$(SONAME)

.DEFAULT_GOAL := all
all: $(LIBA) $(LIBSO) $(BIN)

## ---- the two commands of the README ------------------------------------------------------------
# `deps` may install what the variables above ask pkg-config for, so the rest runs in a make of its own.
run:
	@$(MAKE) --no-print-directory -s deps
	@$(MAKE) --no-print-directory -s all
	@tools/run_demo.sh $(BIN)
test:
	@$(MAKE) --no-print-directory -s deps
	@$(MAKE) --no-print-directory -s all tests
	@tests/run.sh $(BUILD) $(T)
check: test lint
test-neon:
	@tests/kernels/test_neon.sh
deps:
	@tools/deps.sh $(PKG)

## ---- other configurations ----------------------------------------------------------------------
# The C test programs: the shell tests drive the same code through a binary. VL_SERVE_SHORT=1: and the server,
# built the same way, under a shorter form of its own tests; =only: just that; ="only api": just tests/serve/test_api.py.
asan tsan:
	@$(MAKE) --no-print-directory -s CONFIG=$@ $(if $(filter only,$(VL_SERVE_SHORT)),,tests) \
	  $(if $(VL_SERVE_SHORT),build/$@/vitreous) $(if $(filter asan,$@),all)
	@VL_ONLY_C=1 VL_SERVE_SHORT="$(VL_SERVE_SHORT)" tests/run.sh build/$@ $(T)
fuzz:
	@$(MAKE) --no-print-directory -s CONFIG=fuzz fuzzers
	@tools/fuzz.sh build/fuzz $(or $(FUZZ_SECONDS),20)
# The real Qwen vocabulary against HF; installs two packages outside the tree.
test-qwen-vocab: all $(BUILD)/tests/tokenizer/tok_tool
	@python3 tests/tokenizer/qwen_vocab.py $(BUILD)/tests/tokenizer/tok_tool $(BIN)
bench: all
	$(BIN) bench
report: all
	@tools/report.sh $(BIN) build/report
# Encode, prefill and decode of three model shapes, predicted from single operations and measured.
predictor: all
	@tools/predictor.sh $(BIN) build/report
# Held-out accuracy of models/demo through Hugging Face and through vitreous; PYTHON has torch.
eval-demo: all
	$(or $(PYTHON),python3) tools/eval_demo.py --work build/eval-demo --vitreous $(BIN)
lint:
	@tools/lint.sh
	@if [ -x $(BIN) ]; then $(BIN) info --weights-md | cmp - weights.md && echo "weights.md: fresh"; fi
help:
	@echo 'make run      install what is missing (as root), build, answer about the bundled pictures, serve'
	@echo 'make test     the same, then every test; the last line is  N passed, N failed, N skipped'
	@echo '              T="tests/cli/test_cli.sh ..." runs only those'
	@echo 'make check    test + lint'
	@echo 'make all      build/release/vitreous, libvitreous.a and libvitreous.so'
	@echo 'make static   build/release/vitreous-static: needs nothing but libc'
	@echo 'make asan     the C tests under AddressSanitizer and UBSan; make tsan: under ThreadSanitizer'
	@echo '              VL_SERVE_SHORT=1: and the server under a short form of its tests (=only: just that)'
	@echo 'make test-qwen-vocab   the tokenizer against HF on the real vocabulary (installs packages)'
	@echo 'make fuzz     FUZZ_SECONDS=20 on each parser'
	@echo 'make test-neon         the AArch64 kernels under qemu (cross compiler needed)'
	@echo 'make bench    encode, prefill and decode beside the machine'"'"'s own peaks'
	@echo 'make gpu-ladder   the same for the GPU, counted and predicted by gpusim (docs/chapters/08-gpu.md)'
	@echo 'make ladder   how a kernel gets fast, rung by rung: each checked and timed (docs/chapters/07-ladder.md)'
	@echo 'make report   build/report/report.html: this machine measured at the 2B shape, and what it costs'
	@echo 'make predictor  the same stages predicted from single operations: the error on three model shapes'
	@echo 'make eval-demo PYTHON=VENV/bin/python: the demo model on held-out pictures, beside Hugging Face'
	@echo 'make lint     include order, #ifdef and size rules, weights.md up to date'
	@echo 'make install  PREFIX=/usr/local DESTDIR='
	@echo 'make deps     the Debian/Ubuntu packages that are needed'
	@echo 'make clean    remove build/'

## ---- building ----------------------------------------------------------------------------------
# ISA flags on ISA objects only.
$(BUILD)/kernels/cpu/avx2.o $(BUILD)/kernels/cpu/avx2_%.o: ISA := -mavx2 -mfma -mf16c
$(BUILD)/kernels/cpu/avx512.o $(BUILD)/kernels/cpu/avx512_%.o: ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c
$(BUILD)/kernels/cpu/avx512bf16.o: ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mavx2 -mfma
$(BUILD)/kernels/cpu/avx512amx.o $(BUILD)/kernels/cpu/avx512amx_%.o: ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 \
  -mavx2 -mfma -mamx-tile -mamx-bf16
$(BUILD)/kernels/cpu/avx512amx_int8.o: ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mamx-tile -mamx-int8
$(BUILD)/kernels/cpu/avx512vnni.o: ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma

# The tuning file names the kernels it was measured with: a sum of their sources.
KERNEL_SRC := $(sort $(wildcard kernels/cpu/*.c kernels/cpu/*.h kernels/cpu/*.def kernels/cpu/*.inc kernels/tuning.h))
$(BUILD)/kernels/cpu/tuning.o: ISA = -DVL_KERNELS_ID='"$(CONFIG)-$(shell cat $(KERNEL_SRC) | sha256sum | cut -c1-16)"'
$(BUILD)/kernels/cpu/tuning.o: $(KERNEL_SRC)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CFLAGS_ALL) $(ISA) -MMD -MP -c $< -o $@

$(LIBA): $(LIB_OBJ)
	@rm -f $@
	$(call say,AR)
	$(Q)ar rcs $@ $^

$(LIBSO): $(LIB_OBJ) vitreous.map
	$(call say,LINK)
	$(Q)$(CC) -shared -Wl,-soname,$(SONAME) -Wl,--version-script=vitreous.map $(LINK) $(LIB_OBJ) -o $@ $(LIBS)
	@ln -sf $(SONAME) $(BUILD)/libvitreous.so

$(BIN): $(CLI_OBJ) $(SERVE_OBJ) $(LIBA)
	$(call say,LINK)
	$(Q)$(CC) $(LINK) $^ -o $@ $(ALL_LIBS)

# Every library but libc is inside (libc stays shared: the GPU driver is opened with dlopen).
static: $(BUILD)/vitreous-static
$(BUILD)/vitreous-static: $(CLI_OBJ) $(SERVE_OBJ) $(LIBA)
	@tools/no_tls.sh "$(CC)" $(BUILD)/no_tls.o
	$(call say,LINK)
	$(Q)$(CC) $(SAN) -static-libgcc $^ $(BUILD)/no_tls.o -o $@ -Wl,-Bstatic $(SERVE_LIBS) $(LIB_LIBS) -lz -lgomp \
	  -Wl,-Bdynamic $(SYS_LIBS)

-include serve/Makefile.inc cli/Makefile.inc gpusim/Makefile.inc kernels/cuda/Makefile.inc \
         kernels/cpu/ladder/Makefile.inc kernels/cuda/ladder/Makefile.inc

# A test of the server may use its parts; every other test sees the library only.
$(BUILD)/tests/serve/%: $(BUILD)/tests/serve/%.o $(SERVE_OBJ) $(LIBA)
	$(call say,LINK)
	$(Q)$(CC) $(LINK) $^ -o $@ $(ALL_LIBS)
$(BUILD)/tests/fuzz/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(SERVE_OBJ) $(LIBA) \
                            $(if $(FUZZ_LINK),,$(BUILD)/tests/fuzz/driver.o)
	$(call say,LINK)
	$(Q)$(CC) $(LINK) $(FUZZ_LINK) $^ -o $@ $(ALL_LIBS)
# Programs that let memory run out (tests/oom.h) or count allocations bring their own allocators.
OOM := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
$(BUILD)/tests/%: $(BUILD)/tests/%.o $(LIBA)
	$(call say,LINK)
	$(Q)$(CC) $(LINK) $(if $(findstring /test_oom_,$@)$(findstring /model/test_session,$@),$(OOM)) $^ -o $@ $(LIBS)

tests: $(TESTS)
fuzzers: $(FUZZERS)

install: all
	tools/install.sh $(BUILD) "$(DESTDIR)" "$(PREFIX)" $(VERSION)
clean:
	rm -rf build

.SECONDARY:
.PHONY: all run test test-neon test-qwen-vocab check deps asan tsan fuzz bench eval-demo report predictor lint help static tests fuzzers install clean
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
