import Kernels
import Tensors

/// What a UNet attends to. Keys and values of a text are the same in all steps of a picture: where they are kept, the first
/// pass computes them, and later ones find them.
package final class TextContext {
  /// [images * tokens, context width]
  let embeddings: Matrix
  /// Keys and values of one attention after the other, in the order of a pass.
  private let kept: Vector?
  private let isThere: Bool
  private var used = 0

  /// For one pass; keeps nothing.
  package init(_ embeddings: Matrix) {
    self.embeddings = embeddings
    kept = nil
    isThere = false
  }

  /// For one pass.
  /// - Parameters:
  ///   - kept: [tokens * `UNet.textColumns`], the same memory for all passes.
  ///   - isThere: whether a pass before has left keys and values there.
  package init(_ embeddings: Matrix, keptIn kept: Vector, isThere: Bool) {
    self.embeddings = embeddings
    self.kept = kept
    self.isThere = isThere
  }

  /// Keys and values of the attention that comes next, [images * tokens, columns] each; `compute` is called where they are
  /// not there yet.
  func keysAndValues(columns: Int, _ run: Run, compute: (Matrix, Matrix) -> Void) -> (Matrix, Matrix) {
    guard let kept else {
      let (k, v) = (run.matrix(embeddings.rows, columns), run.matrix(embeddings.rows, columns))
      compute(k, v)
      return (k, v)
    }
    let k = Matrix(base: kept.base + used, rows: embeddings.rows, columns: columns)
    let v = Matrix(base: k.base + k.count, rows: k.rows, columns: columns)
    used += k.count + v.count
    precondition(used <= kept.count, "keys and values are kept for another network")
    if !isThere { compute(k, v) }
    return (k, v)
  }
}
