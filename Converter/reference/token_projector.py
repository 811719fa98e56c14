"""AudioToken's token projector in PyTorch: an MLP, then factor-graph attention pooling over time."""
import torch
from torch import nn
from torch.nn import functional


class TokenProjector(nn.Module):
    """[1, tokens, inputs] -> [1, outputs]. Parameter names are those of the released file.

    The published inference code leaves a dropout on in the unary potential; here it is off.
    """

    def __init__(self, inputs, outputs):
        super().__init__()
        self.fc1 = nn.Linear(inputs, inputs)
        self.fc2 = nn.Linear(inputs, outputs)
        unary = nn.Module()
        unary.embed = nn.Conv1d(outputs, outputs, 1)
        unary.feature_reduce = nn.Conv1d(outputs, 1, 1)
        pairwise = nn.Module()
        pairwise.embed_X = nn.Conv1d(outputs, outputs, 1)
        pairwise.embed_Y = nn.Conv1d(outputs, outputs, 1)
        self.fga = nn.Module()
        self.fga.un_models = nn.ModuleList([unary])
        self.fga.pp_models = nn.ModuleDict({"0": pairwise})
        self.fga.reduce_potentials = nn.ModuleList([nn.Conv1d(2, 1, 1, bias=False)])

    @classmethod
    def from_state_dict(cls, state_dict):
        projector = cls(state_dict["fc1.weight"].shape[1], state_dict["fc2.weight"].shape[0])
        projector.load_state_dict(state_dict)
        return projector.eval()

    def forward(self, x):
        h = self.fc2(functional.gelu(self.fc1(x))).transpose(1, 2)  # [1, outputs, tokens]
        unary_model, pairwise_model = self.fga.un_models[0], self.fga.pp_models["0"]
        unary = unary_model.feature_reduce(functional.relu(unary_model.embed(h))).squeeze(1)
        query = functional.normalize(pairwise_model.embed_X(h))
        key = functional.normalize(pairwise_model.embed_Y(h))
        pairwise = query.transpose(1, 2).bmm(key).mean(dim=2)
        # The released weights expect the unary potential first.
        potential = self.fga.reduce_potentials[0](torch.stack([unary, pairwise], 1)).squeeze(1)
        weights = functional.softmax(potential, dim=1).unsqueeze(2)
        return h.bmm(weights).squeeze(2)
