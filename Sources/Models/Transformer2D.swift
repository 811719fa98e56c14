import Kernels
import Tensors

/// diffusers Transformer2DModel: [images, H, W, C] -> the same, in place; attends to itself and to the text.
struct Transformer2D {
  let norm: GroupNorm
  let projectIn: Linear
  let blocks: [Block]
  let projectOut: Linear

  /// - Parameter context: channels of the text embedding.
  init(_ w: Weights, _ channels: Int, context: Int, heads: Int, depth: Int, groups: Int) throws(WeightError) {
    norm = try GroupNorm(w / "norm", channels, groups: groups, epsilon: 1e-6)
    projectIn = try Linear(w / "proj_in", channels, channels)
    var blocks: [Block] = []
    for index in 0..<depth {
      blocks.append(try Block(w / "blocks" / index, channels, context: context, heads: heads))
    }
    self.blocks = blocks
    projectOut = try Linear(w / "proj_out", channels, channels)
  }

  /// Floats of the keys and values of a token, of all blocks.
  var textColumns: Int { blocks.reduce(0) { $0 + 2 * $1.crossAttention.key.weights.shape.outputs } }

  /// - Parameters:
  ///   - context: of all images.
  ///   - distinct: the first images of `x`, where the others are copies of them; all by default.
  func callAsFunction(_ x: FeatureMap, context: TextContext, distinct: Int? = nil, _ run: Run) {
    let distinct = distinct ?? x.images
    run.scratch {
      let tokens = run.rows(x.pixels, x.channels, x.storage)
      let first = tokens.rows(0..<x.pixels / x.images * distinct)
      let alone = distinct < x.images ? run.unguided : run
      run.scratch { projectIn(.groupNorm(norm(x.images(0..<distinct), alone)), into: first, alone) }
      for (index, block) in blocks.enumerated() {
        if index == 0 {
          block.attendToItself(first, images: distinct, alone)
          run.repeatRows(tokens, first: first.rows)
        } else {
          block.attendToItself(tokens, images: x.images, run)
        }
        block.attendToText(tokens, context: context, images: x.images, run)
      }
      projectOut(.rows(tokens), into: x.rows, adding: x.rows, run)
    }
  }

  /// diffusers BasicTransformerBlock with a GEGLU feed-forward: [images * tokens, C], in place.
  struct Block {
    let norm1: LayerNorm
    let selfAttention: Attention
    let norm2: LayerNorm
    let crossAttention: Attention
    let norm3: LayerNorm
    let feedIn: Linear
    let feedOut: Linear

    init(_ w: Weights, _ channels: Int, context: Int, heads: Int) throws(WeightError) {
      norm1 = try LayerNorm(w / "norm1", channels)
      selfAttention = try Attention(w / "attn1", channels, context: channels, heads: heads, projectionBias: false)
      norm2 = try LayerNorm(w / "norm2", channels)
      crossAttention = try Attention(w / "attn2", channels, context: context, heads: heads, projectionBias: false)
      norm3 = try LayerNorm(w / "norm3", channels)
      feedIn = try Linear(w / "ff" / "in", channels, 8 * channels)
      feedOut = try Linear(w / "ff" / "out", 4 * channels, channels)
    }

    /// The first third, in place: nothing of it depends on the text.
    func attendToItself(_ x: StoredRows, images: Int, _ run: Run) {
      selfAttention(norm1(x), images: images, into: x, adding: x, run)
    }

    /// The rest, in place.
    func attendToText(_ x: StoredRows, context: TextContext, images: Int, _ run: Run) {
      crossAttention(norm2(x), context: context, images: images, into: x, adding: x, run)
      run.scratch {
        let input = run.activations(norm3(x), for: feedIn.weights)
        let gated = run.multiplyGated(input, by: feedIn.weights, for: feedOut.weights)
        feedOut(gated, into: x, adding: x, run)
      }
    }
  }
}
