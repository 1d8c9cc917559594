"""Muon for the matrices of the transformer blocks and AdamW for the rest, over one flat parameter
vector that two processes share: each averages the two gradients and updates its half of the tensors."""
import torch


def orthogonalise(g):
    """Newton-Schulz, five steps, on a batch of matrices [K, m, n] (bf16 is enough)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(5):
        s = x @ x.transpose(1, 2)
        x = a * x + (b * s + c * (s @ s)) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Optimiser:
    """params: name -> (offset, shape); flat: shared fp32 [n]; grads: shared fp32 [2, n]."""

    def __init__(self, params, flat, grads, rank, world):
        self.flat, self.grads = flat, grads
        self.tower = {at for name, (at, _) in params.items() if name.startswith(("model.visual.", "aux."))}
        groups, self.adam = {}, []
        for name, (at, shape) in params.items():
            matrix = len(shape) == 2 and not any(t in name for t in ("embed", "aux."))
            if matrix:
                key = (3, shape[0] // 3, shape[1]) if "qkv" in name else (1, *shape)
                groups.setdefault(key, []).append(at)
            else:
                n = 1
                for d in shape:
                    n *= d
                self.adam.append((at, n, 0.0 if len(shape) < 2 else .02))
        # balance the processes: the costly groups first, each matrix list split in two
        self.muon = []
        for key, offsets in sorted(groups.items()):
            self.muon.append((key, offsets[rank::world]))
        self.muon = [(k, o) for k, o in self.muon if o]
        self.adam = self.adam[rank::world]
        self.state = {}

    def step(self, step, lr_muon, lr_adam, tower=1.0):
        """One update. tower: the share of the rates for the vision tower (0: it stands still)."""
        g_all = self.grads
        for key, offsets in self.muon:
            offsets = [o for o in offsets if tower or o not in self.tower]
            if not offsets:
                continue
            k, m, n = key
            size = k * m * n
            g = torch.stack([g_all[:, o:o + size].mean(0) for o in offsets]).view(-1, m, n)
            buf = self.state.setdefault(("muon", key, len(offsets)), torch.zeros_like(g))
            buf.lerp_(g, .05)
            u = orthogonalise(g.lerp(buf, .95)) * max(1, m / n) ** .5
            u = u.view(len(offsets), size)
            for o, row in zip(offsets, u):
                lr = lr_muon * (tower if o in self.tower else 1)
                self.flat[o:o + size].mul_(1 - lr * .02).add_(row, alpha=-lr)
        for at, n, decay in self.adam:
            lr = lr_adam * (tower if at in self.tower else 1)
            if lr == 0:
                continue
            g = g_all[:, at:at + n].mean(0)
            m, v = self.state.setdefault(("adam", at), (torch.zeros(n), torch.zeros(n)))
            m.lerp_(g, .1)
            v.lerp_(g * g, .02)
            t = step + 1
            u = (m / (1 - .9 ** t)) / ((v / (1 - .98 ** t)).sqrt() + 1e-8)
            self.flat[at:at + n].mul_(1 - lr * decay).add_(u, alpha=-lr)
