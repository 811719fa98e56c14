import Kernels
import Tensors

/// The shape of a transformers CLIPTextModel; `text_encoder/config.json`.
package struct TextConfiguration: Equatable, Sendable {
  package var vocabulary: Int
  package var positions: Int
  package var width: Int
  package var layers: Int
  package var heads: Int
  package var feedForward: Int
  package var quickGELU: Bool
  package var epsilon: Double
  package init(
    vocabulary: Int, positions: Int, width: Int, layers: Int, heads: Int, feedForward: Int, quickGELU: Bool,
    epsilon: Double
  ) {
    self.vocabulary = vocabulary
    self.positions = positions
    self.width = width
    self.layers = layers
    self.heads = heads
    self.feedForward = feedForward
    self.quickGELU = quickGELU
    self.epsilon = epsilon
  }
}

/// transformers CLIPTextModel: token ids -> last hidden state [prompts * tokens, width]
package struct CLIPText {
  let configuration: TextConfiguration
  let tokens: EmbeddingTable
  let positions: UnsafePointer<Float>
  let layers: [Layer]
  let finalNorm: LayerNorm

  package init(_ w: Weights, _ configuration: TextConfiguration) throws(WeightError) {
    self.configuration = configuration
    let c = configuration
    let embeddings = w / "embeddings"
    tokens = try (embeddings / "token_embedding").table(rows: c.vocabulary, columns: c.width)
    positions = try (embeddings / "position_embedding" / "weight").vector(c.positions, c.width)
    var layers: [Layer] = []
    for index in 0..<c.layers { layers.append(try Layer(w / "encoder" / "layers" / index, c)) }
    self.layers = layers
    finalNorm = try LayerNorm(w / "final_layer_norm", c.width, epsilon: Float(c.epsilon))
  }

  /// - Parameters:
  ///   - prompts: token ids, equally many for each prompt; all but the placeholder's are below the vocabulary's size.
  ///   - placeholder: the id whose input embedding is `audioToken`, [1, width].
  ///   - out: [prompts * tokens, width].
  package func callAsFunction(_ prompts: [[Int]], placeholder: Int, audioToken: Matrix, into out: Matrix, _ run: Run) {
    let length = prompts[0].count
    precondition(prompts.allSatisfy { $0.count == length } && length <= configuration.positions)
    precondition(out.rows == prompts.count * length && out.columns == configuration.width)
    run.serial {
      for (index, id) in prompts.joined().enumerated() {
        let row = out.row(index)
        if id == placeholder {
          row.update(from: audioToken.base, count: out.columns)
        } else {
          tokens.read(id, into: row)
        }
        let position = positions + index % length * out.columns
        for c in 0..<out.columns { row[c] = row[c] + position[c] }
      }
    }
    for layer in layers { layer(out, prompts: prompts.count, run) }
    finalNorm(out, into: out, run)
  }

  /// transformers CLIPEncoderLayer: [prompts * tokens, width], in place.
  struct Layer {
    let norm1: LayerNorm
    let attention: Attention
    let norm2: LayerNorm
    let feedIn: Linear
    let feedOut: Linear
    let activation: Activation

    init(_ w: Weights, _ c: TextConfiguration) throws(WeightError) {
      norm1 = try LayerNorm(w / "layer_norm1", c.width, epsilon: Float(c.epsilon))
      attention = try Attention(w / "self_attn", c.width, context: c.width, heads: c.heads, projectionBias: true)
      norm2 = try LayerNorm(w / "layer_norm2", c.width, epsilon: Float(c.epsilon))
      feedIn = try Linear(w / "mlp" / "fc1", c.width, c.feedForward)
      feedOut = try Linear(w / "mlp" / "fc2", c.feedForward, c.width)
      activation = c.quickGELU ? .quickGELU : .gelu
    }

    func callAsFunction(_ x: Matrix, prompts: Int, _ run: Run) {
      run.scratch {
        let rows = StoredRows(x)
        attention(norm1(rows), images: prompts, into: rows, adding: rows, mask: .causal, run)
        let hidden = run.matrix(x.rows, feedIn.weights.shape.outputs)
        feedIn(norm2(rows), into: hidden, run)
        run.apply(activation, to: hidden)
        feedOut(hidden, into: x, adding: x, run)
      }
    }
  }
}
