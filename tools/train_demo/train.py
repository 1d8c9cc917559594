"""Trains the demo model from scratch on generated pictures: two processes, one thread each.

  python tools/train_demo/train.py --work DIR --steps 9000          (resumes when DIR has a checkpoint)
  python tools/train_demo/train.py --work DIR --from models/demo    (goes on from exported weights)
  python tools/train_demo/train.py --work DIR --export models/demo  (writes the best weights, bf16)

Prints loss, accuracy per task on the training batches and, every --eval steps, on held-out ones
(answers judged with the true answer so far as context: equal to greedy decoding for exact answers).
"""
import argparse
import collections
import dataclasses
import os
import pathlib
import time

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")  # read when torch loads

import torch  # noqa: E402
import torch.multiprocessing as mp
import torch.nn.functional as F

import batches as B
import build
import model as M
import optim

LR_MUON, LR_ADAM, WARM = .015, 2e-3, 60


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of the run. share: of all steps; rate: learning rates at its start and end, as shares of the
    two above; tower: the vision tower's share of them (0: frozen); sheets: share of the batches that are
    sheets of characters for the tower; easy: share that are small pictures of few shapes, all lookups;
    ramp: the share of the stage in which the difficulty rises, and the power it rises with; crowds: share
    of the easy batches that are many shapes to be counted."""
    name: str
    share: float
    rate: tuple
    tower: float
    sheets: float
    easy: float
    ramp: tuple = (0, 1)
    crowds: float = 0.0


STAGES = (Stage("characters", .10, (1.0, 1.0), 1.0, 1.0, 0.0, (.87, 1.3)),  # the tower alone
          Stage("everything", .45, (.3, .15), 1.0, .12, .2, (.5, 1)),
          Stage("look up", .15, (.6, .6), 0.0, 0.0, 1.0),  # the decoder alone
          Stage("together", .30, (.5, 0.0), .3, .08, .45))
GO_ON = (Stage("go on", 1.0, (.4, 0.0), 1.0, .08, .3, crowds=.6),)  # from weights that know it all a little


def stage_at(step, total):
    """-> the stage of this step, the share of it that is over, and its number of steps."""
    at = 0.0
    for stage in STAGES:
        steps = stage.share * total
        if step < at + steps or stage is STAGES[-1]:
            return stage, (step - at) / steps, steps
        at += steps


def schedule(step, total):
    """Share of the learning rates: a warm-up for each stage, then linear between its two rates."""
    stage, over, steps = stage_at(step, total)
    first, last = stage.rate
    return min(1, (over * steps + 1) / WARM) * (first + (last - first) * min(1, over))


def difficulty(step, total):
    """0 easy .. 1 full."""
    stage, over, _ = stage_at(step, total)
    share, power = stage.ramp
    return min(1, over / share) ** power if share else 1.0


def sheet_now(step, rank, total):
    """Sheets of characters instead of questions; the processes take turns."""
    share = stage_at(step, total)[0].sheets
    return share == 1 or share > 0 and (step + rank * round(.5 / share)) % round(1 / share) == 0


def learns(name, stage):
    """False for what a stage keeps frozen: the tower and the auxiliary heads that read it."""
    return stage.tower > 0 or not name.startswith(("model.visual.", "aux."))


def layout(named):
    """name -> (offset, shape) in one flat vector, and its length."""
    out, n = {}, 0
    for name, p in named.items():
        out[name] = (n, tuple(p.shape))
        n += p.numel()
    return out, n


def views(flat, params, dtype, stage=STAGES[0]):
    """Leaf tensors in `dtype` that share one buffer, for one step's forward and backward; those that the
    stage keeps frozen need no gradient."""
    buf = flat.to(dtype)
    w = {}
    for name, (at, shape) in params.items():
        n = 1
        for d in shape:
            n *= d
        w[name] = buf[at:at + n].view(shape).detach().requires_grad_(learns(name, stage))
    return w


def answer_loss(w, hidden, batch, level=1.0):
    """Cross entropy over answer tokens and right / wrong. At first every answer weighs the same, so that
    short ones (a colour) are not drowned by boxes; later length ** .35."""
    spans = batch["spans"]
    rows, cols, weight, owner = [], [], [], []
    for k, (_, row, lo, hi) in enumerate(spans):
        rows += [row] * (hi - lo)
        cols += range(lo, hi)
        weight += [(hi - lo) ** (.35 * level - 1)] * (hi - lo)
        owner += [k] * (hi - lo)
    rows, cols, owner = torch.tensor(rows), torch.tensor(cols), torch.tensor(owner)
    weight = torch.tensor(weight)
    logits = F.linear(hidden[rows, cols - 1], w["model.language_model.embed_tokens.weight"]).float()
    target = batch["ids"][rows, cols]
    loss = (F.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()
    wrong = torch.zeros(len(spans)).index_add_(0, owner, (logits.argmax(-1) != target).float())
    return loss, [(t, float(n == 0)) for (t, *_), n in zip(spans, wrong)]


def show(scores):
    return " ".join(f"{t} {sum(v) / len(v):.2f}" for t, v in sorted(scores.items()) if v)


def worker(rank, world, args, flat, grads, params, shared, barrier):
    torch.set_num_threads(1)
    torch.manual_seed(args.seed + rank)
    os.nice(args.nice)
    tok = build.make_tokenizer()
    coder = B.Coder(tok)
    opt = optim.Optimiser(params, flat, grads, rank, world)
    work = pathlib.Path(args.work)
    step, best = 0, -1.0
    state_file = work / f"state{rank}.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=False)
        step, best, opt.state = state["step"], state["best"], state["opt"]
        if rank == 0:
            flat.copy_(state["flat"])
            print(f"resumed at step {step}", flush=True)
    barrier.wait()
    running = collections.defaultdict(lambda: collections.deque(maxlen=150))
    losses, began, first, saved, made = [], time.time(), step, time.time(), 0
    while step < args.steps:
        # the plan may be changed while it runs: a number in DIR/steps
        if rank == 0:
            note = work / "steps"
            shared[-2] = float(note.read_text()) if note.exists() else args.steps
        barrier.wait()
        args.steps = int(shared[-2])
        hard = difficulty(step, args.steps)
        stage = stage_at(step, args.steps)[0]
        w = views(flat, params, torch.bfloat16, stage)
        if sheet_now(step, rank, args.steps):
            batch = B.sheet_batch(args.seed, step, rank, hard if stage.sheets == 1 else 1.0, args.budget)
            merged, _, taps = M.vision(w, batch["pixels"], *batch["grid"])
            taps, loss, right = taps + [merged], torch.zeros(()), []
        else:
            batch = B.training_batch(args.seed, step, rank, hard, coder, args.budget, stage.easy,
                                     stage.crowds)
            hidden, taps = M.forward(w, batch)
            loss, right = answer_loss(w, hidden, batch, hard)
        aux, char_acc = M.aux_loss(w, taps, batch["marks"]) if stage.tower else (torch.zeros(()), [])
        weight = .5 if hard < 1 or not right else .06
        (loss + weight * aux).backward()
        for name, (at, shape) in params.items():
            if not learns(name, stage):
                continue
            g = w[name].grad
            dst = grads[rank, at:at + w[name].numel()]
            dst.zero_() if g is None else dst.copy_(g.flatten())
        norm = grads[rank].norm().item()
        if not norm < 1e4:
            grads[rank].zero_()
        made += len(batch["ids"])
        losses.append((loss.item(), aux.item() if torch.is_tensor(aux) else 0, char_acc[-1] if char_acc else 0,
                       char_acc[0] if char_acc else 0))
        for t, ok in right:
            running[t].append(ok)
        barrier.wait()
        s = schedule(step, args.steps)
        opt.step(step, LR_MUON * s, LR_ADAM * s, stage.tower)
        barrier.wait()
        step += 1
        if rank == 0 and step % args.log == 0:
            n = [sum(c) / len(losses) for c in zip(*losses)]
            rate = (step - first) / (time.time() - began)
            print(f"{time.strftime('%H:%M:%S')} step {step}/{args.steps} {stage.name} hard {hard:.2f} loss {n[0]:.3f} "
                  f"aux {n[1]:.3f} char {n[3]:.2f}>{n[2]:.2f} | {rate:.2f} steps/s {2 * made / (time.time() - began):.0f} "
                  f"pictures/s | {show(running)}", flush=True)
            losses = []
        if stage.sheets < 1 and step % args.eval == 0 or step == args.steps:
            score = evaluate(rank, world, args, flat, params, coder, shared, barrier)
            if rank == 0:
                print(f"  held out at {step}: mean {score[0]:.4f} | {score[1]}", flush=True)
                if score[0] > best:
                    best = score[0]
                    torch.save({"flat": flat.clone(), "step": step, "score": score}, work / "best.pt")
        stop = step == args.steps
        if rank == 0:
            shared[-1] = float(time.time() - saved > args.save * 60 or stop)
        barrier.wait()
        if shared[-1]:
            saved = time.time()
            state = {"step": step, "best": best, "opt": opt.state, "flat": flat if rank == 0 else None}
            torch.save(state, str(state_file) + ".new")
            os.replace(str(state_file) + ".new", state_file)
            barrier.wait()


def evaluate(rank, world, args, flat, params, coder, shared, barrier):
    """Held-out accuracy per task; the processes share the batches."""
    names = sorted(list(B.Q.WEIGHT))
    counts = torch.zeros(len(names), 2)
    with torch.no_grad():
        w = views(flat, params, torch.bfloat16)
        for k in range(rank, args.eval_batches, world):
            batch = B.held_out_batch(args.seed, k, coder)
            hidden, _ = M.forward(w, batch)
            for t, ok in answer_loss(w, hidden, batch)[1]:
                counts[names.index(t)] += torch.tensor([ok, 1.0])
    slot = shared[:-2].view(world, len(names), 2)
    slot[rank] = counts
    barrier.wait()
    right, n = slot.sum(0).unbind(1)
    acc = right / n.clamp(min=1)
    result = (acc[n > 0].mean().item(),
              " ".join(f"{t} {a:.2f}" for t, a, c in zip(names, acc.tolist(), n.tolist()) if c))
    barrier.wait()
    return result


def short(p):
    """bf16 rounded to five bits of fraction, so that git packs the file a sixth smaller; the answers stay."""
    bits = p.detach().contiguous().view(torch.int16).int()
    return ((bits + 1 + (bits >> 2 & 1)) & ~3).to(torch.int16).view(torch.bfloat16)


def export(args, flat, params):
    """best.pt (before there is one, the last state) -> HF safetensors in bf16 beside the configs."""
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration
    path = pathlib.Path(args.work) / "best.pt"
    best = torch.load(path if path.exists() else path.with_name("state0.pt"), weights_only=False)
    build.write_configs(args.export)
    model = Qwen3VLForConditionalGeneration(AutoConfig.from_pretrained(args.export)).bfloat16()
    w = {name: short(p) for name, p in views(best["flat"], params, torch.bfloat16).items()}
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, p in named.items():
            if name != "lm_head.weight":
                p.copy_(w[name])
    from safetensors.torch import save_file
    save_file({n: p.detach().contiguous() for n, p in named.items() if n != "lm_head.weight"},
              pathlib.Path(args.export) / "model.safetensors", metadata={"format": "pt"})
    print(f"exported step {best['step']}", f"held-out {best['score']}" if "score" in best else "")


def load(named, folder):
    """Puts exported weights into the parameters; the auxiliary heads, which are not exported, stay new."""
    from safetensors.torch import load_file
    stored = load_file(pathlib.Path(folder) / "model.safetensors")
    with torch.no_grad():
        for name, p in named.items():
            if not name.startswith("aux."):
                p.copy_(stored.pop(name))
    if stored:
        raise SystemExit(f"{folder}: tensors that this model does not have: {sorted(stored)[:4]}")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", required=True, help="folder for checkpoints")
    ap.add_argument("--steps", type=int, default=9000, help="length of the learning-rate plan")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--budget", type=float, default=4000, help="cost of one process's batch")
    ap.add_argument("--eval", type=int, default=400)
    ap.add_argument("--eval-batches", type=int, default=24)
    ap.add_argument("--log", type=int, default=50)
    ap.add_argument("--save", type=float, default=4, help="minutes between checkpoints")
    ap.add_argument("--nice", type=int, default=10)
    ap.add_argument("--from", dest="start", help="folder of exported weights to go on from (the plan GO_ON)")
    ap.add_argument("--export", help="write the best weights into this folder and stop")
    args = ap.parse_args()
    work = pathlib.Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    build.write_configs(work / "config")
    model = M.new_model(work / "config", args.seed)
    aux = M.Aux((128, 128, 192), (16, 16, 64))
    named = M.params_of(model, aux)
    params, n = layout(named)
    if args.start:
        global STAGES
        STAGES = GO_ON
        load(named, args.start)
    if args.export:
        export(args, None, params)
        return
    flat = torch.cat([p.detach().flatten() for p in named.values()]).share_memory_()
    world = 2
    grads = torch.zeros(world, n).share_memory_()
    shared = torch.zeros(world * len(B.Q.WEIGHT) * 2 + 2).share_memory_()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    ctx = mp.get_context("fork")
    barrier = ctx.Barrier(world, timeout=900)  # a dead partner ends the run
    procs = [ctx.Process(target=worker, args=(k, world, args, flat, grads, params, shared, barrier))
             for k in range(world)]
    for p in procs:
        p.start()
    for p in procs:
        p.join()
    raise SystemExit(max(p.exitcode for p in procs))


if __name__ == "__main__":
    main()
